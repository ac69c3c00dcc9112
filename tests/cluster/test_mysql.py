"""Replicas on MySQL, S3 and Redis."""

from __future__ import annotations

from tests.cluster import agreeing


class AgreeingTests(agreeing.Agreeing):
    """Replicas agree."""

    database_server = "MySQL"
