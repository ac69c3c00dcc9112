"""Pins, references and removals on the engines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.trial.unittest import TestCase

from ncps.database import migrate
from ncps.database.catalog import SqlCatalog
from ncps.database.dialects.sqlite import SQLite
from ncps.database.local import LocalDatabase
from ncps.database.pins import SqlPins
from ncps.database.pool import Database
from ncps.database.references import SqlPathGraph
from ncps.database.removals import SqlRemovals
from ncps.database.twins import SqlTwins
from ncps.observe.metrics import Metrics
from tests.contract.closures import PathGraphContract, PinsContract, RemovalsContract
from tests.contract.twins import TwinsContract
from tests.integration.databases import database_of, emptied
from tests.integration.servers import shared
from tests.integration.servers.database import DatabaseServer

reactor = cast("Any", _reactor)


class AllContracts(PinsContract, PathGraphContract, RemovalsContract, TwinsContract):
    def on(self, database: Database) -> None:
        """Test the tables of this database."""
        self.catalog = SqlCatalog(database)
        self.pins = SqlPins(database)
        self.references = SqlPathGraph(database)
        self.removals = SqlRemovals(database)
        self.twins = SqlTwins(database)


class SqliteClosuresTests(AllContracts, TestCase):
    """SQLite."""

    def setUp(self) -> None:
        dialect = SQLite(Path(self.mktemp()).absolute() / "db.sqlite")
        migrate.up(dialect)
        database = LocalDatabase(reactor, dialect, Metrics())
        database.open()
        self.addCleanup(database.close)
        self.on(database)


class OnServer(AllContracts):
    server: Callable[[], DatabaseServer]

    def setUp(self) -> None:
        database = database_of(reactor, emptied(type(self).server()))
        database.open()
        self.addCleanup(database.close)
        self.on(database)


class PostgreSQLClosuresTests(OnServer, TestCase):
    """PostgreSQL."""

    server = staticmethod(shared.postgresql)


class MariaDBClosuresTests(OnServer, TestCase):
    """MariaDB."""

    server = staticmethod(shared.mariadb)


class MySQLClosuresTests(OnServer, TestCase):
    """MySQL."""

    server = staticmethod(shared.mysql)
