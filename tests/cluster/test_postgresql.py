"""Replicas on PostgreSQL, S3 and Redis."""

from __future__ import annotations

from tests.cluster import agreeing, closing, contradicting, faults, streaming, twinning, uploading


class StreamingTests(streaming.Streaming):
    """One fetch for all."""

    database_server = "PostgreSQL"


class CrowdTests(streaming.CrowdOfThree):
    """A hundred clients at once; more of that in `tests.long`."""

    database_server = "PostgreSQL"


class AgreeingTests(agreeing.Agreeing):
    """Replicas agree."""

    database_server = "PostgreSQL"


class FaultTests(faults.Faults):
    """Servers that go away."""

    database_server = "PostgreSQL"


class ContradictingTests(contradicting.Contradicting):
    """Replicas contradict each other."""

    database_server = "PostgreSQL"


class UploadDatabaseTests(uploading.DatabaseFaults):
    """The database goes away while a replica takes an upload."""

    database_server = "PostgreSQL"


class UploadLeaseTests(uploading.RedisFaults):
    """The lease of a NAR is lost while a replica publishes it."""

    database_server = "PostgreSQL"


class ClosingTests(closing.Closing):
    """Pins and removals."""

    database_server = "PostgreSQL"


class TwinningTests(twinning.Twinning):
    """Twins."""

    database_server = "PostgreSQL"
