"""The table of tokens on the engines, and two concurrent writers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import DeferredList
from twisted.trial.unittest import TestCase

from ncps.database import migrate
from ncps.database.dialects.sqlite import SQLite
from ncps.database.local import LocalDatabase
from ncps.database.tokens import SqlTokens
from ncps.errors import Conflict
from ncps.observe.metrics import Metrics
from tests.contract.running import start
from tests.contract.tokens import TokensContract
from tests.integration.databases import database_of, emptied
from tests.integration.servers import shared
from tests.integration.servers.database import DatabaseServer

reactor = cast("Any", _reactor)


class OnDatabase(TokensContract):
    others: SqlTokens

    async def test_two_of_one_name_at_once(self) -> None:
        """Two processes make a token of one name at the same time: one gets a conflict."""
        made = [
            (tokens, await self.one(number=number))
            for number, tokens in ((1, self.tokens), (2, self.others))
        ]
        results = await DeferredList(
            [start(tokens.create(token)) for tokens, token in made], consumeErrors=True
        )
        self.assertEqual([False, True], sorted(is_made for is_made, _ in results))
        (refusal,) = [found for is_made, found in results if not is_made]
        self.assertIsNotNone(refusal.check(Conflict), refusal)
        self.assertEqual(1, len((await self.tokens.table()).tokens))


class SqliteTokensTests(OnDatabase, TestCase):
    """SQLite, open in two places."""

    def setUp(self) -> None:
        dialect = SQLite(Path(self.mktemp()).absolute() / "db.sqlite")
        migrate.up(dialect)
        self.tokens, self.others = self.opened(dialect), self.opened(dialect)

    def opened(self, dialect: SQLite) -> SqlTokens:
        database = LocalDatabase(reactor, dialect, Metrics())
        database.open()
        self.addCleanup(database.close)
        return SqlTokens(database)


class OnServer(OnDatabase):
    server: Callable[[], DatabaseServer]

    def setUp(self) -> None:
        database = database_of(reactor, emptied(type(self).server()))
        database.open()
        self.addCleanup(database.close)
        self.tokens = self.others = SqlTokens(database)


class PostgreSQLTokensTests(OnServer, TestCase):
    """PostgreSQL."""

    server = staticmethod(shared.postgresql)


class MariaDBTokensTests(OnServer, TestCase):
    """MariaDB."""

    server = staticmethod(shared.mariadb)


class MySQLTokensTests(OnServer, TestCase):
    """MySQL."""

    server = staticmethod(shared.mysql)
