"""The catalog on PostgreSQL and MariaDB: its contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.trial.unittest import TestCase

from ncps.database.catalog import SqlCatalog
from tests.contract.catalog import CatalogContract
from tests.integration.databases import database_of, emptied
from tests.integration.servers import shared
from tests.integration.servers.mariadb import MariaDB
from tests.integration.servers.postgresql import PostgreSQL

reactor = cast("Any", _reactor)


class ServerCatalog(CatalogContract):
    """The contract on an empty database of a server."""

    server: Callable[[], PostgreSQL | MariaDB]

    def setUp(self) -> None:
        super().setUp()
        database = database_of(reactor, emptied(type(self).server()))
        database.open()
        self.addCleanup(database.close)
        self.catalog = SqlCatalog(database)


class PostgreSQLCatalogTests(ServerCatalog, TestCase):
    """PostgreSQL."""

    server = staticmethod(shared.postgresql)


class MariaDBCatalogTests(ServerCatalog, TestCase):
    """MariaDB."""

    server = staticmethod(shared.mariadb)
