"""What one process has of PostgreSQL, for tests."""

from __future__ import annotations

from twisted.internet import reactor

from ncps.database import migrate
from ncps.locks.postgresql.locks import PostgresRegistry
from ncps.locks.shared import Polls, SharedLeases
from tests.integration.databases import dialect_of


def make_tables(url: str) -> None:
    """Bring an empty database to where leases need it."""
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
        self.registry = PostgresRegistry(reactor, dialect_of(url), ttl_s=ttl, address=address)
        self.notices = self.registry.notices
        self.leases = SharedLeases(
            reactor,
            self.registry,
            polls=Polls(initial_s=poll, longest_s=poll),
            may_degrade=may_degrade,
            address=address,
        )

    async def stop(self) -> None:
        """Disconnect."""
        await self.leases.stop(5)
