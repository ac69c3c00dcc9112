"""The leases of one process in PostgreSQL, for tests."""

from __future__ import annotations

from twisted.internet import reactor

from ncps.aio.backoff import Backoff
from ncps.database import migrate
from ncps.locks.degraded import DegradedGrants
from ncps.locks.postgresql.locks import PostgresBackend
from ncps.locks.shared import SharedLeases
from ncps.observe.metrics import Metrics
from tests.integration.databases import dialect_of


def make_tables(url: str) -> None:
    """Make the tables of leases in an empty database."""
    migrate.up(dialect_of(url))


class Replica:
    """Leases and notices on a session of their own."""

    def __init__(
        self,
        url: str,
        *,
        address: str = "",
        ttl: float = 15.0,
        poll: float = 0.05,
        may_degrade: bool = False,
    ) -> None:
        self.backend = PostgresBackend(reactor, dialect_of(url), ttl_s=ttl, address=address)
        self.notices = self.backend.notices
        self.leases = SharedLeases(
            reactor,
            self.backend,
            polls=Backoff(first_s=poll, longest_s=poll),
            metrics=Metrics(),
            mode="postgresql",
            degraded=DegradedGrants(address=address) if may_degrade else None,
        )

    async def stop(self) -> None:
        """Disconnect."""
        await self.leases.stop(5)
