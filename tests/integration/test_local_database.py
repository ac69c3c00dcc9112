"""Transactions of SQLite, and the opening of its file."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, gatherResults

from ncps.aio.grouping import MOST
from ncps.database import local, migrate, nars
from ncps.database.local import LocalDatabase
from ncps.errors import Conflict, Corrupt, StorageFull, Unavailable
from ncps.observe.metrics import Metrics
from tests.contract.running import start
from tests.contract.samples import EARLY, key_of, stored
from tests.fakes.metrics import observed
from tests.integration.sqlite_database import Narrow, SqliteTestCase, stored_rows

reactor = cast("Any", _reactor)


class DatabaseTests(SqliteTestCase):
    """Transactions."""

    def setUp(self) -> None:
        super().setUp()
        self.database = self.opened(self.dialect)

    async def test_a_failing_write_leaves_nothing(self) -> None:
        """A failed transaction is rolled back completely."""

        def failing(txn: Any) -> None:
            nars.mark_stored(txn, stored(1))
            raise Corrupt("no")

        with self.assertRaises(Corrupt):
            await self.database.write(failing)
        self.assertIsNone(await self.database.read(nars.find, key_of(1)))

    async def test_a_cancelled_write_is_done_nevertheless(self) -> None:
        """Cancelling the caller does not stop the transaction; the next one follows it."""
        write = start(self.database.write(nars.mark_stored, stored(1)))
        write.cancel()
        with self.assertRaises(CancelledError):
            await write
        await self.database.write(nars.mark_stored, stored(2))
        self.assertIsNotNone(await self.database.read(nars.find, key_of(1)))

    async def test_writes_of_one_time_share_a_sync(self) -> None:
        """The first one goes alone, all others together; each is durable on return."""
        synced: list[int] = []
        self.patch(os, "fdatasync", synced.append)
        numbers = range(1 + MOST)
        writes = [self.database.write_settled(nars.mark_stored, stored(n)) for n in numbers]
        await gatherResults([start(write) for write in writes])
        self.assertEqual(len(synced), 2)
        for number in numbers:
            self.assertIsNotNone(await self.database.read(nars.find, key_of(number)))

    async def test_one_failing_write_of_many_is_undone_alone(self) -> None:
        """It gets its own error, as one of ours; the others are committed."""

        def failing(txn: Any, number: int, error: Exception) -> None:
            nars.mark_stored(txn, stored(number))
            raise error

        def refused(txn: Any, number: int) -> None:
            nars.mark_stored(txn, stored(number))
            txn.execute("INSERT INTO narinfos (hash) VALUES (NULL)")

        first = start(self.database.write(nars.mark_stored, stored(0)))
        wrong = start(self.database.write(failing, 1, Conflict("no")))
        odd = start(self.database.write(refused, 2))
        last = start(self.database.write_settled(nars.mark_stored, stored(3)))
        await first
        await last
        with self.assertRaises(Conflict):
            await wrong
        with self.assertRaises(Corrupt):
            await odd
        found = [await self.database.read(nars.find, key_of(number)) for number in range(4)]
        self.assertEqual([nar is not None for nar in found], [True, False, False, True])

    async def test_a_sync_that_fails_is_the_error_of_those_that_wait_for_it(self) -> None:
        """The other writes of the same transaction are committed; an error of one stays its own."""

        def refused(_txn: Any) -> None:
            raise Conflict("no")

        def failing(_fd: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        self.patch(os, "fdatasync", failing)
        first = start(self.database.write(nars.mark_stored, stored(0)))
        plain = start(self.database.write(nars.mark_stored, stored(1)))
        settled = start(self.database.write_settled(nars.mark_stored, stored(2)))
        settle = start(self.database.settle())
        wrong = start(self.database.write_settled(refused))
        await first
        await plain
        for waiting in (settled, settle):
            with self.assertRaisesRegex(Unavailable, "cannot be synced"):
                await waiting
        with self.assertRaises(Conflict):
            await wrong

    async def test_readers_cannot_write(self) -> None:
        """The engine refuses a write in a reading function."""
        with self.assertRaises(StorageFull):
            await self.database.read(nars.touch, {key_of(1): EARLY})
        with self.assertRaises(StorageFull):
            await self.database.point(nars.mark_verified, stored(1, verified_at=EARLY))

    async def test_a_read_sees_one_state(self) -> None:
        """The second half of a read does not see a commit in its middle."""
        between, committed = threading.Event(), threading.Event()

        def twice(txn: Any) -> tuple[int, int]:
            first = stored_rows(txn)
            between.set()
            committed.wait(10)
            return first, stored_rows(txn)

        read = start(self.database.read(twice))
        await self.database.read(lambda _txn: between.wait(10))
        await self.database.write(nars.mark_stored, stored(1))
        committed.set()
        self.assertEqual(await read, (0, 0))

    async def test_point_reads_stay_on_this_thread(self) -> None:
        """A point read uses no thread, unless it would have to wait for a lock."""
        here = threading.get_ident()
        tries: list[int] = []

        def busy_here(_txn: Any) -> int:
            tries.append(threading.get_ident())
            if tries[-1] == here:
                error = sqlite3.OperationalError("database is locked")
                error.sqlite_errorcode = sqlite3.SQLITE_BUSY_RECOVERY
                raise error
            return 17

        self.assertEqual(await self.database.point(lambda _txn: threading.get_ident()), here)
        self.assertEqual(await self.database.point(busy_here), 17)
        self.assertEqual(len(tries), 2)

    async def test_point_reads_see_the_last_write(self) -> None:
        """After a write has returned, every read sees its rows."""
        for number in range(20):
            await self.database.write(nars.mark_stored, stored(number))
            self.assertIsNotNone(await self.database.point(nars.find, key_of(number)))

    async def test_every_call_is_timed(self) -> None:
        """The metrics get each call with its kind, also failed ones."""
        await self.database.point(nars.find, key_of(1))
        await self.database.read(nars.find, key_of(1))
        await self.database.write(nars.mark_verified, stored(1, verified_at=EARLY))
        with self.assertRaises(ZeroDivisionError):
            await self.database.read(lambda _txn: 1 // 0)
        kinds = ("point", "read", "write")
        found = [observed(self.metrics.database_seconds(kind))[0] for kind in kinds]
        self.assertEqual(found, [1, 2, 1])


class TakenFileTests(SqliteTestCase):
    """Another process has the file locked at the start."""

    def taken(self) -> threading.Timer:
        """Lock the file for a moment in another process."""
        holder = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        holder.execute("PRAGMA journal_mode = DELETE")
        holder.execute("BEGIN EXCLUSIVE")
        timer = threading.Timer(0.4, holder.close)
        timer.start()
        self.addCleanup(timer.join)
        return timer

    async def test_it_is_opened_when_it_is_let_go(self) -> None:
        """This happens for a moment when a worker makes a removed file again, or closes it last."""
        database = LocalDatabase(reactor, self.dialect, Metrics())
        self.taken()
        database.open()
        self.addCleanup(database.close)
        self.assertEqual(0, await database.point(stored_rows))

    async def test_a_schema_waits_likewise(self) -> None:
        """The schema waits, too, also if the engine does not wait by itself."""
        self.taken()
        self.assertEqual((), migrate.up(Narrow(self.path)))

    async def test_a_file_that_is_never_let_go(self) -> None:
        """The start fails in time and says why."""
        holder = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(holder.close)
        holder.execute("PRAGMA journal_mode = DELETE")
        holder.execute("BEGIN EXCLUSIVE")
        database = LocalDatabase(reactor, self.dialect, Metrics())
        self.patch(local, "OPEN_ATTEMPTS", 2)
        with self.assertRaisesRegex(Unavailable, "locked"):
            database.open()
