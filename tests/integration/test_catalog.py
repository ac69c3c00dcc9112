"""The SQLite catalog: its contract, and its faults."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from attrs import evolve
from twisted.internet import reactor as _reactor
from twisted.internet.defer import DeferredList

from ncps.database import local
from ncps.database.catalog import SqlCatalog
from ncps.database.dialects.sqlite import SQLite
from ncps.database.local import LocalDatabase
from ncps.database.realisations import SqlRealisations
from ncps.errors import Corrupt, Refused, StorageFull, Unavailable
from ncps.observe.metrics import Metrics
from ncps.ports import Totals
from tests.contract.catalog import CatalogContract
from tests.contract.realisations import RealisationsContract
from tests.contract.running import start
from tests.contract.samples import digest_of, entry, key_of, later, record, stored
from tests.integration.sqlite_database import Narrow, SqliteTestCase

reactor = cast("Any", _reactor)


class SqliteCatalogTests(CatalogContract, SqliteTestCase):
    """The catalog on SQLite."""

    def setUp(self) -> None:
        super().setUp()
        self.catalog = SqlCatalog(self.opened(self.dialect))


class SqliteRealisationsTests(RealisationsContract, SqliteTestCase):
    """The realisations on SQLite."""

    def setUp(self) -> None:
        super().setUp()
        self.realisations = SqlRealisations(self.opened(self.dialect))


class DurabilityTests(SqliteTestCase):
    """The catalog after a loss of power."""

    def setUp(self) -> None:
        super().setUp()
        self.synced: list[str] = []
        self.catalog = SqlCatalog(self.opened(self.dialect))
        self.patch(
            os,
            "fdatasync",
            lambda fd: self.synced.append(str(Path(f"/proc/self/fd/{fd}").readlink())),
        )

    async def test_an_eviction_is_on_the_disk_before_the_bytes_go(self) -> None:
        """A loss of power restores no row of removed bytes; other writes need no sync for that."""
        await self.catalog.mark_stored(stored(1))
        idle = await self.catalog.idle(later(60), 10)
        self.assertEqual(self.synced, [])
        self.assertEqual(len(await self.catalog.evict(idle)), 1)
        self.assertEqual(self.synced, [f"{self.path}-wal"])
        self.assertEqual(await self.catalog.evict(idle), [])
        self.assertEqual(len(self.synced), 1)

    async def test_a_disk_that_fails_to_sync_is_unavailable(self) -> None:
        """The caller that wants to remove the bytes gets the error, so they stay."""
        await self.catalog.mark_stored(stored(1))

        def failing(_fd: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        self.patch(os, "fdatasync", failing)
        with self.assertRaisesRegex(Unavailable, "cannot be synced"):
            await self.catalog.evict(await self.catalog.idle(later(60), 10))


class FaultTests(SqliteTestCase):
    """The catalog on a faulty database."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(local, "PAUSE_S", 0.01)

    def catalog(self, *pragmas: str) -> SqlCatalog:
        return SqlCatalog(self.opened(Narrow(self.path, *pragmas)))

    async def test_a_full_database_is_a_full_store(self) -> None:
        """Without space for a row the write fails completely, and reads continue."""
        catalog = self.catalog("max_page_count = 20")
        with self.assertRaises(StorageFull):
            for number in range(200):
                await catalog.add_narinfo(entry(number), record(number))
        count = (await catalog.totals()).narinfos
        self.assertTrue(0 < count < 200)
        self.assertIsNotNone(await catalog.narinfo(digest_of(0)))
        self.assertIsNone(await catalog.narinfo(digest_of(count)))
        self.assertIsNone(await catalog.nar(key_of(count)))

    async def test_a_full_database_fails_all_writes_of_one_time(self) -> None:
        """SQLite rolls back their common transaction, and reads continue."""
        catalog = self.catalog("max_page_count = 20")
        writes = [start(catalog.add_narinfo(entry(n), record(n))) for n in range(200)]
        outcomes = await DeferredList(writes, consumeErrors=True)
        count = (await catalog.totals()).narinfos
        self.assertEqual(count, [is_right for is_right, _ in outcomes].count(True))
        self.assertTrue(0 < count < 200)
        for number, (is_right, error) in enumerate(outcomes):
            found = await catalog.narinfo(digest_of(number))
            self.assertEqual(found is not None, is_right)
            if not is_right:
                error.trap(StorageFull)

    async def test_a_wrong_count_is_put_right(self) -> None:
        """If the counter was changed or removed by hand, a recount repairs it."""
        catalog = self.catalog()
        await catalog.mark_stored(stored(1, stored_size=100))
        for meddling in ("UPDATE accounts SET bytes = 30", "DELETE FROM accounts"):
            with closing(self.dialect.connect()) as other:
                other.execute(meddling)
            self.assertEqual(await catalog.recount(), 70 if "30" in meddling else 100)
            self.assertEqual(await catalog.stored_bytes(), 100)
            self.assertEqual(await catalog.recount(), 0)
        self.assertEqual(await catalog.totals(), Totals(0, 1, 100))

    async def test_a_read_only_database_is_a_full_store(self) -> None:
        """If nothing may be written, writes fail with that error and reads continue."""
        await self.catalog().mark_stored(stored(1))
        catalog = self.catalog("query_only = ON")
        with self.assertRaises(StorageFull):
            await catalog.mark_stored(stored(2))
        self.assertEqual(await catalog.nar(key_of(1)), stored(1))

    async def test_a_lock_of_another_process_is_waited_for(self) -> None:
        """ncps repeats a write while the database is locked, and it succeeds once it is free."""
        other = self.dialect.connect()
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        self.patch(local, "PAUSE_S", 0.3)
        write = start(self.catalog().mark_stored(stored(1)))
        reactor.callLater(0.05, other.rollback)
        await write
        self.assertEqual(await self.catalog().nar(key_of(1)), stored(1))

    async def test_a_lock_that_stays_is_unavailable(self) -> None:
        """A write to a database that stays locked fails with a retry time; reads continue."""
        await self.catalog().mark_stored(stored(1))
        other = self.dialect.connect()
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        self.patch(local, "PATIENCE_S", 0.3)
        catalog = self.catalog()
        with self.assertRaises(Unavailable) as caught:
            await catalog.mark_stored(stored(2))
        self.assertIsNotNone(caught.exception.retry_after)
        self.patch(local, "PATIENCE_S", 1000.0)
        for write in [start(catalog.mark_stored(stored(number))) for number in range(3, 20)]:
            with self.assertRaises(Unavailable):  # none of them has waited so long
                await write
        self.assertEqual(await catalog.nar(key_of(1)), stored(1))
        self.assertEqual(await catalog.totals(), Totals(0, 1, 1001))
        other.rollback()
        await catalog.mark_stored(stored(2))
        other.execute("BEGIN IMMEDIATE")  # after a success the full wait is allowed again
        reactor.callLater(2 * local.SHORT_PATIENCE_S, other.rollback)
        await catalog.mark_stored(stored(3))
        self.assertEqual(await catalog.nar(key_of(3)), stored(3))

    async def test_a_damaged_file_is_unavailable(self) -> None:
        """Garbage in the file is an error of the database, never an absent row."""
        catalog = self.catalog()
        for number in range(50):
            await catalog.add_narinfo(entry(number), stored(number))
        await catalog.forget_nar(key_of(0))
        sick = self.sick_copy()
        for ask in (sick.narinfo(digest_of(7)), sick.nar(key_of(7)), sick.totals()):
            with self.assertRaises(Unavailable):
                await ask
        with self.assertRaises(Unavailable):
            await sick.mark_stored(stored(7))

    def sick_copy(self) -> SqlCatalog:
        """Return a copy of the database whose rows and indexes were overwritten."""
        path = self.path.with_name("sick.sqlite")
        with sqlite3.connect(self.path) as source, sqlite3.connect(path) as target:
            source.backup(target)
            roots = target.execute("SELECT rootpage FROM sqlite_schema WHERE rootpage > 0")
            pages = [number for (number,) in roots]
        source.close()
        target.close()
        data = bytearray(path.read_bytes())
        for number in pages:  # not those of the schema, without which the file cannot be opened
            data[(number - 1) * 4096 : number * 4096] = b"\xa5" * 4096
        path.write_bytes(data)
        return SqlCatalog(self.opened(Narrow(path)))

    async def test_a_row_that_makes_no_sense_is_unavailable(self) -> None:
        """A row that was edited by hand is neither served nor counts as absent."""
        catalog = self.catalog()
        await catalog.add_narinfo(entry(1), stored(1))
        other = self.dialect.connect()
        self.addCleanup(other.close)
        other.execute("UPDATE narinfos SET narinfo = 'nonsense'")
        with self.assertRaises(Unavailable):
            await catalog.narinfo(digest_of(1))
        with self.assertRaises(Unavailable):
            await catalog.narinfos_of(key_of(1))
        other.execute("UPDATE nar_files SET nar_hash = 'nonsense'")
        with self.assertRaises(Unavailable):
            await catalog.nar(key_of(1))
        with self.assertRaises(Unavailable):
            await catalog.unverified(10, {"xz"})

    async def test_impossible_facts_are_corrupt(self) -> None:
        """Sizes below zero or too large, and bytes without a size, are never recorded."""
        catalog = self.catalog()
        for nar in (
            stored(1, file_size=-1),
            stored(1, nar_size=2**63),
            evolve(stored(1), stored_size=None),
        ):
            with self.assertRaises(Corrupt):
                await catalog.mark_stored(nar)
        self.assertIsNone(await catalog.nar(key_of(1)))

    async def test_a_closed_database_is_unavailable(self) -> None:
        """Before the start and after the end every call fails immediately."""
        database = LocalDatabase(reactor, self.dialect, Metrics())
        catalog = SqlCatalog(database)
        for _ in range(2):
            for call in (catalog.nar(key_of(1)), catalog.totals(), catalog.mark_stored(stored(1))):
                with self.assertRaises(Unavailable):
                    await call
            database.open()
            database.close()
            database.close()

    async def test_a_missing_directory_is_one_of_our_errors(self) -> None:
        """A database that cannot be opened raises none of the driver's errors."""
        database = LocalDatabase(reactor, SQLite(self.path / "missing" / "db.sqlite"), Metrics())
        with self.assertRaises(Refused):
            database.open()
