"""What one process has of PostgreSQL, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
from twisted.internet import reactor

import ncps
from ncps.errors import NcpsError, Refused, Unavailable
from ncps.locks.postgresql import PostgresRegistry
from ncps.locks.postgresql_session import Engine
from ncps.locks.shared import Polls, SharedLeases

SCHEMA = Path(ncps.__file__).parent / "schema" / "postgresql" / "0010_leases.sql"


class Driver(Engine):
    """The driver as it comes."""

    errors = (psycopg.Error,)

    def __init__(self, url: str) -> None:
        self._url = url

    @property
    def where(self) -> str:
        return "the test's database"

    def connect(self) -> Any:
        return psycopg.connect(self._url, autocommit=True, connect_timeout=2)

    def translated(self, error: Exception) -> NcpsError:
        kind = Refused if "password" in str(error) else Unavailable
        return kind(str(error).splitlines()[0])


def make_tables(url: str) -> None:
    """Bring an empty database to where leases need it."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(SCHEMA.read_bytes())


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
        self.registry = PostgresRegistry(reactor, Driver(url), ttl_s=ttl, address=address)
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
