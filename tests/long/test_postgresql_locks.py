"""Replicas agree, with leases in PostgreSQL instead of Redis."""

from __future__ import annotations

from tests.cluster import agreeing
from tests.cluster import test_postgresql_locks as locks


class AgreeingTests(locks.WithoutRedis, agreeing.Agreeing):
    pass
