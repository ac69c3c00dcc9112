"""How the engines find what is asked for while somebody waits: by an index, not row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.trial.unittest import TestCase

from ncps.database import migrate, narinfos
from ncps.database.catalog import SqlCatalog
from ncps.database.dialects.sqlite import SQLite
from ncps.database.local import LocalDatabase
from ncps.database.pool import Database
from tests.contract.samples import entry, key_of, record
from tests.integration.databases import database_of, emptied
from tests.integration.servers import shared

reactor = cast("Any", _reactor)

INDEX = "nar_files_nar_hash"
ROWS = 60


class PlanTests(TestCase):
    """`Catalog.narinfos_alike`, which joins NARs by their NarHash."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()

    async def plan(self, database: Database, explain: str, *before: str) -> list[tuple[Any, ...]]:
        """What an engine says of the statement, with some rows in the tables."""
        database.open()
        self.addCleanup(database.close)
        catalog = SqlCatalog(database)
        for number in range(ROWS):
            await catalog.add_narinfo(entry(number), record(number))

        def ask(txn: Any) -> list[tuple[Any, ...]]:
            for statement in before:
                txn.execute(statement)
            key = key_of(7)
            rows = txn.execute(f"{explain} {narinfos.ALIKE}", (key.name, key.extension)).fetchall()
            return list(rows)

        return await database.read(ask)

    async def test_sqlite(self) -> None:
        """SQLite searches each table by an index."""
        dialect = SQLite(self.directory / "db.sqlite")
        migrate.up(dialect)
        found = await self.plan(LocalDatabase(reactor, dialect), "EXPLAIN QUERY PLAN")
        self.assertIn(INDEX, str(found))
        self.assertNotIn("SCAN", str(found))

    async def test_postgresql(self) -> None:
        """PostgreSQL can; with so few rows it does if it is not to read all of them."""
        database = database_of(reactor, emptied(shared.postgresql()))
        found = await self.plan(database, "EXPLAIN", "SET LOCAL enable_seqscan = off")
        self.assertIn(INDEX, str(found))

    async def test_mariadb(self) -> None:
        """MariaDB refers to it by the hash of the one row of that name."""
        database = database_of(reactor, emptied(shared.mariadb()))
        keys = {row[2]: row[5] for row in await self.plan(database, "EXPLAIN")}
        self.assertEqual(INDEX, keys["n"])
