"""The engines use an index for each query that a client waits for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.trial.unittest import TestCase

from ncps.database import idle, migrate, narinfos
from ncps.database.catalog import SqlCatalog
from ncps.database.dialects.sqlite import SQLite
from ncps.database.local import LocalDatabase
from ncps.database.pool import Database
from ncps.observe.metrics import Metrics
from tests.contract.samples import entry, key_of, record, stored
from tests.integration.databases import database_of, emptied
from tests.integration.servers import shared

reactor = cast("Any", _reactor)

INDEX = "nar_files_nar_hash"
ANALYZE = "ANALYZE TABLE nar_files, narinfos"
"""MySQL and MariaDB count new rows some time later, and choose an index by these
counts."""
ROWS = 60


class PlanTests(TestCase):
    """`Catalog.narinfos_alike`, which joins NARs by their NarHash."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()

    async def plan(
        self,
        database: Database,
        explain: str,
        *before: str,
        statement: str = narinfos.ALIKE,
        values: tuple[Any, ...] = (key_of(7).name, key_of(7).extension),
    ) -> list[tuple[Any, ...]]:
        """Return the engine's plan for a statement, with some rows in the tables."""
        database.open()
        self.addCleanup(database.close)
        catalog = SqlCatalog(database)
        for number in range(ROWS):
            await catalog.add_narinfo(entry(number), record(number))
            await catalog.mark_stored(stored(number))

        def ask(txn: Any) -> list[tuple[Any, ...]]:
            for each in before:
                txn.execute(each)
            return list(txn.execute(f"{explain} {statement}", values).fetchall())

        return await database.read(ask)

    async def test_uploads_are_added_up_by_an_index(self) -> None:
        """SQLite reads only the rows of uploads, and not those of all stored NARs."""
        dialect = SQLite(self.directory / "db.sqlite")
        migrate.up(dialect)
        database = LocalDatabase(reactor, dialect, Metrics())
        database.open()
        self.addCleanup(database.close)

        def explain(txn: Any) -> str:
            return str(txn.execute(f"EXPLAIN QUERY PLAN {idle.SIZE_OF_ONLY_COPIES}").fetchall())

        found = await database.read(explain)
        self.assertIn("nar_files_uploaded_at (uploaded_at>", found)

    async def test_sqlite(self) -> None:
        """SQLite searches each table by an index."""
        dialect = SQLite(self.directory / "db.sqlite")
        migrate.up(dialect)
        found = await self.plan(LocalDatabase(reactor, dialect, Metrics()), "EXPLAIN QUERY PLAN")
        self.assertIn(INDEX, str(found))
        self.assertNotIn("SCAN", str(found))

    async def test_postgresql(self) -> None:
        """PostgreSQL can; with so few rows it does so if a full scan is switched off."""
        database = database_of(reactor, emptied(shared.postgresql()))
        found = await self.plan(database, "EXPLAIN", "SET LOCAL enable_seqscan = off")
        self.assertIn(INDEX, str(found))

    async def test_mariadb(self) -> None:
        """MariaDB uses the hash of the one row with that name."""
        database = database_of(reactor, emptied(shared.mariadb()))
        keys = {row[2]: row[5] for row in await self.plan(database, "EXPLAIN", ANALYZE)}
        self.assertEqual(INDEX, keys["n"])

    async def test_mysql(self) -> None:
        """MySQL does the same, and shows it with one more column."""
        database = database_of(reactor, emptied(shared.mysql()))
        rows = await self.plan(database, "EXPLAIN FORMAT=TRADITIONAL", ANALYZE)
        keys = {row[2]: row[6] for row in rows}
        self.assertEqual(INDEX, keys["n"])

    async def test_idle_nars_need_no_temporary_table(self) -> None:
        """MariaDB and MySQL read NARs in the order of their ids, and sort only the found ones.

        A table of all NARs takes longer than a statement may, if there are a million.
        """
        for server, explain in (
            (shared.mariadb(), "EXPLAIN"),
            (shared.mysql(), "EXPLAIN FORMAT=TRADITIONAL"),
        ):
            found = await self.plan(
                database_of(reactor, emptied(server)),
                explain,
                ANALYZE,
                statement=idle.FIND[False],
                values=(2**42,) * 4 + (10,),
            )
            self.assertNotIn("temporary", str(found))
