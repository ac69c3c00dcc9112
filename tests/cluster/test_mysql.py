"""Replicas on MySQL, S3 and Redis."""

from __future__ import annotations

from tests.cluster import agreeing, closing, uploading


class AgreeingTests(agreeing.Agreeing):
    """Replicas agree."""

    database_server = "MySQL"


class UploadDatabaseTests(uploading.DatabaseFaults):
    """The database goes away while a replica takes an upload."""

    database_server = "MySQL"


class ClosingTests(closing.Closing):
    """Pins and removals."""

    database_server = "MySQL"
