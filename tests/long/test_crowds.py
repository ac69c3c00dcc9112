"""A hundred clients of two and of three replicas, on each database."""

from __future__ import annotations

from tests.cluster import streaming

LARGE = 200 * 1024 * 1024


class PostgreSQLTests(streaming.CrowdOfThree, streaming.CrowdOfTwo, streaming.CrowdBereft):
    database_server = "PostgreSQL"
    large = LARGE


class MariaDBTests(streaming.CrowdOfThree, streaming.CrowdOfTwo, streaming.CrowdBereft):
    database_server = "MariaDB"
    large = LARGE
