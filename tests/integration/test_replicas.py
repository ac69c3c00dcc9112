"""The list of replicas on the engines, and rows of other programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.trial.unittest import TestCase

from ncps.database import migrate
from ncps.database.dialects.base import Dialect, Transaction
from ncps.database.dialects.sqlite import SQLite
from ncps.database.local import LocalDatabase
from ncps.database.replicas import LONGEST, SqlReplicas
from ncps.observe.metrics import Metrics
from ncps.ports import Replica
from tests.contract.replicas import ONE, ReplicasContract
from tests.integration.databases import database_of, emptied
from tests.integration.servers import shared
from tests.integration.servers.database import DatabaseServer

reactor = cast("Any", _reactor)


class OnDatabase(ReplicasContract):
    dialect: Dialect

    def execute(self, statement: str, *parameters: object) -> None:
        connection = self.dialect.connect()
        try:
            txn = Transaction(connection.cursor(), self.dialect.translate)
            for begin in self.dialect.begin_write:
                txn.execute(begin)
            txn.execute(statement, parameters)
            connection.commit()
        finally:
            connection.close()

    def age(self, replica: Replica, seconds: float) -> None:
        self.execute(
            "UPDATE replicas SET seen_at = seen_at - ? WHERE id = ?",
            int(seconds * 1000),
            replica.id,
        )

    async def test_rows_of_other_programs(self) -> None:
        """Invalid values are left out, missing ones are empty, and the rest can be logged."""
        for number, told in enumerate(
            ("", "[]", "7", '{"pid": "x"}', '{"host": "a\\nb", "pid": 3, "more": 1}')
        ):
            self.execute(
                "INSERT INTO replicas (id, seen_at, told) VALUES (?, 0, ?)", f"r{number}", told
            )
        self.execute(
            "INSERT INTO replicas (id, seen_at, told) VALUES ('r9', 0, ?)",
            f'{{"url": "{"u" * 5000}"}}',
        )
        found = {seen.replica.id: seen.replica for seen in (await self.replicas.roll()).seen}
        self.assertEqual(
            {
                "r4": Replica(id="r4", host="a?b", pid=3),
                "r9": Replica(id="r9", url="u" * LONGEST),
            },
            found,
        )
        await self.replicas.announce(ONE)
        self.assertEqual({ONE.id}, await self.ids())


class SqliteReplicasTests(OnDatabase, TestCase):
    """SQLite."""

    def setUp(self) -> None:
        dialect = SQLite(Path(self.mktemp()).absolute() / "db.sqlite")
        migrate.up(dialect)
        self.dialect = dialect
        database = LocalDatabase(reactor, dialect, Metrics())
        database.open()
        self.addCleanup(database.close)
        self.replicas = SqlReplicas(database)


class OnServer(OnDatabase):
    server: Callable[[], DatabaseServer]

    def setUp(self) -> None:
        self.dialect = emptied(type(self).server())
        database = database_of(reactor, self.dialect)
        database.open()
        self.addCleanup(database.close)
        self.replicas = SqlReplicas(database)


class PostgreSQLReplicasTests(OnServer, TestCase):
    """PostgreSQL."""

    server = staticmethod(shared.postgresql)


class MariaDBReplicasTests(OnServer, TestCase):
    """MariaDB."""

    server = staticmethod(shared.mariadb)


class MySQLReplicasTests(OnServer, TestCase):
    """MySQL."""

    server = staticmethod(shared.mysql)
