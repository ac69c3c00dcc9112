"""Long tests with MariaDB; `tests.cluster` has the same with PostgreSQL."""

from __future__ import annotations

from tests.cluster import contradicting


class ContradictingTests(contradicting.Contradicting):
    """Replicas contradict each other."""

    database_server = "MariaDB"
