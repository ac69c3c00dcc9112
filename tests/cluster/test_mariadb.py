"""Replicas on MariaDB, S3 and Redis."""

from __future__ import annotations

from tests.cluster import agreeing, closing, faults, streaming, uploading


class StreamingTests(streaming.Streaming):
    """One fetch for all."""

    database_server = "MariaDB"


class CrowdTests(streaming.CrowdBereft):
    """A hundred clients at once; more of that in `tests.long`."""

    database_server = "MariaDB"


class AgreeingTests(agreeing.Agreeing):
    """Replicas agree."""

    database_server = "MariaDB"


class FaultTests(faults.Faults):
    """Servers that go away."""

    database_server = "MariaDB"


class UploadDatabaseTests(uploading.DatabaseFaults):
    """The database goes away while a replica takes an upload."""

    database_server = "MariaDB"


class ClosingTests(closing.Closing):
    """Pins and removals."""

    database_server = "MariaDB"
