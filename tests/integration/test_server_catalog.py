"""Catalog and realisations on PostgreSQL, MariaDB and MySQL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.trial.unittest import TestCase

from ncps.database.catalog import SqlCatalog
from ncps.database.realisations import SqlRealisations
from ncps.database.server import ServerDatabase
from tests.contract.catalog import CatalogContract
from tests.contract.realisations import RealisationsContract
from tests.contract.running import Contract
from tests.integration.databases import database_of, emptied
from tests.integration.servers import shared
from tests.integration.servers.database import DatabaseServer

reactor = cast("Any", _reactor)


class OnServer(Contract):
    """A contract on an empty database of a server."""

    server: Callable[[], DatabaseServer]
    database: ServerDatabase

    def setUp(self) -> None:
        super().setUp()
        self.database = database_of(reactor, emptied(type(self).server()))
        self.database.open()
        self.addCleanup(self.database.close)


class ServerCatalog(CatalogContract, OnServer):
    """The contract of the catalog."""

    def setUp(self) -> None:
        super().setUp()
        self.catalog = SqlCatalog(self.database)


class ServerRealisations(RealisationsContract, OnServer):
    """The contract of the realisations."""

    def setUp(self) -> None:
        super().setUp()
        self.realisations = SqlRealisations(self.database)


class PostgreSQLCatalogTests(ServerCatalog, TestCase):
    """PostgreSQL."""

    server = staticmethod(shared.postgresql)


class MariaDBCatalogTests(ServerCatalog, TestCase):
    """MariaDB."""

    server = staticmethod(shared.mariadb)


class MySQLCatalogTests(ServerCatalog, TestCase):
    """MySQL."""

    server = staticmethod(shared.mysql)


class PostgreSQLRealisationsTests(ServerRealisations, TestCase):
    """PostgreSQL."""

    server = staticmethod(shared.postgresql)


class MariaDBRealisationsTests(ServerRealisations, TestCase):
    """MariaDB."""

    server = staticmethod(shared.mariadb)


class MySQLRealisationsTests(ServerRealisations, TestCase):
    """MySQL."""

    server = staticmethod(shared.mysql)
