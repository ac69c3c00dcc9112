"""What takes long with MariaDB, and is in `tests.cluster` with PostgreSQL."""

from __future__ import annotations

from tests.cluster import contradicting


class ContradictingTests(contradicting.Contradicting):
    """What replicas must have in common, and have not."""

    database_server = "MariaDB"
