"""A database on a server for each test."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.trial.unittest import TestCase

from ncps.database.catalog import SqlCatalog
from ncps.database.server import ServerDatabase
from ncps.errors import Unavailable
from ncps.observe.metrics import Metrics
from tests.integration.databases import database_of, emptied
from tests.integration.servers import shared
from tests.integration.servers.database import DatabaseServer
from tests.integration.servers.mariadb import MariaDB
from tests.integration.servers.mysql import MySQL
from tests.integration.servers.postgresql import PostgreSQL

reactor = cast("Any", _reactor)


@cache
def mishandled_postgresql() -> PostgreSQL:
    """Return a server of these tests alone, which they stop and kill."""
    return shared.kept(PostgreSQL())


@cache
def mishandled_mariadb() -> MariaDB:
    """Return a server of these tests alone, which they stop and kill."""
    return shared.kept(MariaDB())


@cache
def mishandled_mysql() -> MySQL:
    """Return a server of these tests alone, which they stop and kill."""
    return shared.kept(MySQL())


class ServerTestCase(TestCase):
    """A database with the schema on a server."""

    engine: Callable[[], DatabaseServer]

    def setUp(self) -> None:
        self.server = type(self).engine()
        self.dialect = emptied(self.server)
        self.name = self.dialect.where.split("'")[1]
        self.metrics = Metrics()
        self.database = self.opened()
        self.catalog = SqlCatalog(self.database)

    def opened(self, **changes: Any) -> ServerDatabase:
        database = database_of(reactor, self.dialect, metrics=self.metrics, **changes)
        database.open()
        self.addCleanup(database.close)
        return database

    async def unavailable(self, asked: Any, *, within_s: float) -> Unavailable:
        """Return the error of a call, which must come in time."""
        since = reactor.seconds()
        with self.assertRaises(Unavailable) as caught:
            await asked
        self.assertLess(reactor.seconds() - since, within_s)
        self.assertNotIn("Traceback", str(caught.exception))
        error: Unavailable = caught.exception
        return error
