"""A hundred clients of two and of three replicas, on each database."""

from __future__ import annotations

from tests.cluster import streaming


class PostgreSQLTests(streaming.CrowdOfThree, streaming.CrowdOfTwo, streaming.CrowdBereft):
    database_server = "PostgreSQL"


class MariaDBTests(streaming.CrowdOfThree, streaming.CrowdOfTwo, streaming.CrowdBereft):
    database_server = "MariaDB"
