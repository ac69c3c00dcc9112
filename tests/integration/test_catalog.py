"""The SQLite catalog: its contract, and its faults."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from attrs import evolve
from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError
from twisted.trial.unittest import TestCase

from ncps.database import local, migrate, nars
from ncps.database.catalog import SqlCatalog
from ncps.database.dialects.sqlite import SQLite
from ncps.database.local import LocalDatabase
from ncps.database.walguard import WalCut, WalGuard
from ncps.errors import Corrupt, Refused, StorageFull, Unavailable
from ncps.ports import Totals
from tests.contract.catalog import CatalogContract
from tests.contract.running import start
from tests.contract.samples import EARLY, digest_of, entry, key_of, later, record, stored

reactor = cast("Any", _reactor)


def _stored(txn: Any) -> int:
    """How many NARs are stored, by their rows."""
    count = txn.execute("SELECT COUNT(*) FROM nar_files WHERE stored_at IS NOT NULL").fetchone()[0]
    return int(count)


SUCCESSOR = """
import os, sys
from pathlib import Path
from ncps.database import migrate
from ncps.database.dialects.sqlite import SQLite
dialect = SQLite(Path(sys.argv[1]))
migrate.up(dialect)
connection = dialect.connect()
connection.execute("UPDATE accounts SET bytes = 0")
assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
print(connection.execute("SELECT COUNT(*) FROM narinfos").fetchone()[0], flush=True)
os._exit(0)  # its log stays, as that of a process that goes on
"""


class Narrow(SQLite):
    """SQLite that waits for no lock, with pragmas of the test's own on each connection."""

    def __init__(self, path: Path, *pragmas: str) -> None:
        super().__init__(path)
        self.pragmas = pragmas

    @property
    def arguments(self) -> dict[str, Any]:
        return super().arguments | {"timeout": 0.0}

    def set_up(self, connection: Any, *, read_only: bool) -> None:
        super().set_up(connection, read_only=read_only)
        for pragma in self.pragmas:
            connection.execute(f"PRAGMA {pragma}")


class SqliteTestCase(TestCase):
    """A fresh database file."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute() / "db.sqlite"
        self.dialect = SQLite(self.path)
        migrate.up(self.dialect)
        self.seen: list[str] = []

    def opened(self, dialect: SQLite) -> LocalDatabase:
        database = LocalDatabase(reactor, dialect, lambda kind, _seconds: self.seen.append(kind))
        database.open()
        self.addCleanup(database.close)
        return database


class SqliteCatalogTests(CatalogContract, SqliteTestCase):
    """The contract."""

    def setUp(self) -> None:
        super().setUp()
        self.catalog = SqlCatalog(self.opened(self.dialect))


class DurabilityTests(SqliteTestCase):
    """What survives the death of the machine."""

    def setUp(self) -> None:
        super().setUp()
        self.synced: list[str] = []
        self.catalog = SqlCatalog(self.opened(self.dialect))
        self.patch(
            os, "fsync", lambda fd: self.synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        )

    async def test_what_is_evicted_is_on_the_disk_before_its_bytes_go(self) -> None:
        """No loss of power brings back a row whose bytes are removed; nothing else waits for it."""
        await self.catalog.mark_stored(stored(1))
        idle = await self.catalog.idle(later(60), 10)
        self.assertEqual(self.synced, [])
        self.assertEqual(len(await self.catalog.evict(idle)), 1)
        self.assertEqual(self.synced, [f"{self.path}-wal"])
        self.assertEqual(await self.catalog.evict(idle), [])
        self.assertEqual(len(self.synced), 1)

    async def test_a_disk_that_fails_to_sync_is_unavailable(self) -> None:
        """The bytes stay: whoever was to remove them is told."""
        await self.catalog.mark_stored(stored(1))

        def failing(_fd: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        self.patch(os, "fsync", failing)
        with self.assertRaisesRegex(Unavailable, "cannot be synced"):
            await self.catalog.evict(await self.catalog.idle(later(60), 10))


class FaultTests(SqliteTestCase):
    """What a sick database does to the catalog."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(local, "PAUSE_S", 0.01)

    def catalog(self, *pragmas: str) -> SqlCatalog:
        return SqlCatalog(self.opened(Narrow(self.path, *pragmas)))

    async def test_a_full_database_is_a_full_store(self) -> None:
        """Without room for a row the write says so, nothing is half there, and reads go on."""
        catalog = self.catalog("max_page_count = 20")
        with self.assertRaises(StorageFull):
            for number in range(200):
                await catalog.add_narinfo(entry(number), record(number))
        count = (await catalog.totals()).narinfos
        self.assertTrue(0 < count < 200)
        self.assertIsNotNone(await catalog.narinfo(digest_of(0)))
        self.assertIsNone(await catalog.narinfo(digest_of(count)))
        self.assertIsNone(await catalog.nar(key_of(count)))

    async def test_a_wrong_count_is_put_right(self) -> None:
        """Whatever has meddled with the counter, or has removed it: counting anew tells the sum."""
        catalog = self.catalog()
        await catalog.mark_stored(stored(1, stored_size=100))
        for meddling in ("UPDATE accounts SET bytes = 30", "DELETE FROM accounts"):
            with closing(self.dialect.connect()) as other:
                other.execute(meddling)
            self.assertEqual(await catalog.recount(), 70 if "30" in meddling else 100)
            self.assertEqual(await catalog.stored_bytes(), 100)
            self.assertEqual(await catalog.recount(), 0)
        self.assertEqual(await catalog.totals(), Totals(0, 1, 100))

    async def test_the_count_begins_with_what_is_there(self) -> None:
        """A database that had no counter gets one of what it holds."""
        path = self.path.with_name("old.sqlite")
        old = SQLite(path)
        migrate.up(old)
        with closing(old.connect()) as other:
            await SqlCatalog(self.opened(old)).mark_stored(stored(1, stored_size=100))
            other.execute("DROP TABLE accounts")
            other.execute("DROP INDEX narinfos_nar_file_id_used")
            other.execute("CREATE INDEX narinfos_nar_file_id ON narinfos (nar_file_id)")
            other.execute("CREATE INDEX narinfos_last_used_at ON narinfos (last_used_at)")
            other.execute("DELETE FROM schema_migrations WHERE version = 4")
        self.assertEqual([migration.version for migration in migrate.up(old)], [4])
        self.assertEqual(await SqlCatalog(self.opened(old)).stored_bytes(), 100)

    async def test_a_read_only_database_is_a_full_store(self) -> None:
        """Where nothing may be written, writes say so and reads go on."""
        await self.catalog().mark_stored(stored(1))
        catalog = self.catalog("query_only = ON")
        with self.assertRaises(StorageFull):
            await catalog.mark_stored(stored(2))
        self.assertEqual(await catalog.nar(key_of(1)), stored(1))

    async def test_a_lock_of_another_process_is_waited_for(self) -> None:
        """A write that finds the database locked is tried again, and works once it is free."""
        other = self.dialect.connect()
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        self.patch(local, "PAUSE_S", 0.3)
        write = start(self.catalog().mark_stored(stored(1)))
        reactor.callLater(0.05, other.rollback)
        await write
        self.assertEqual(await self.catalog().nar(key_of(1)), stored(1))

    async def test_a_lock_that_stays_is_unavailable(self) -> None:
        """A database locked for long gives up the write with a time to try again; reads go on."""
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
        other.execute("BEGIN IMMEDIATE")  # after a success there is patience again
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
        """A copy of the database whose rows and indexes were overwritten."""
        path = self.path.with_name("sick.sqlite")
        with sqlite3.connect(self.path) as source, sqlite3.connect(path) as target:
            source.backup(target)
        source.close()
        target.close()
        data = path.read_bytes()
        path.write_bytes(data[:4096] + b"\xa5" * (len(data) - 4096))
        return SqlCatalog(self.opened(Narrow(path)))

    async def test_a_row_that_makes_no_sense_is_unavailable(self) -> None:
        """A row somebody edited is neither served nor taken for absent."""
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
        """Sizes below zero or beyond all numbers, or bytes without a size, are never recorded."""
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
        """Before the start and after the end every call says so at once."""
        database = LocalDatabase(reactor, self.dialect)
        catalog = SqlCatalog(database)
        for _ in range(2):
            for call in (catalog.nar(key_of(1)), catalog.totals(), catalog.mark_stored(stored(1))):
                with self.assertRaises(Unavailable):
                    await call
            database.open()
            database.close()
            database.close()

    async def test_a_missing_directory_is_one_of_our_errors(self) -> None:
        """A database that cannot be opened is no error of the driver."""
        database = LocalDatabase(reactor, SQLite(self.path / "missing" / "db.sqlite"))
        with self.assertRaises(Refused):
            database.open()


class TakenFileTests(SqliteTestCase):
    """Another process has the file to itself at the moment of the start."""

    def taken(self) -> threading.Timer:
        """Have it lock the file for a moment."""
        holder = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        holder.execute("PRAGMA journal_mode = DELETE")
        holder.execute("BEGIN EXCLUSIVE")
        timer = threading.Timer(0.4, holder.close)
        timer.start()
        self.addCleanup(timer.join)
        return timer

    async def test_it_is_opened_when_it_is_let_go(self) -> None:
        """Two workers that make a removed file again, or whoever closes it last, are quick."""
        database = LocalDatabase(reactor, self.dialect)
        self.taken()
        database.open()
        self.addCleanup(database.close)
        self.assertEqual(0, await database.point(_stored))

    async def test_a_schema_waits_likewise(self) -> None:
        """Also where the engine does not wait by itself."""
        self.taken()
        self.assertEqual((), migrate.up(Narrow(self.path)))

    async def test_a_file_that_is_never_let_go(self) -> None:
        """The start fails in time and says why."""
        holder = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(holder.close)
        holder.execute("PRAGMA journal_mode = DELETE")
        holder.execute("BEGIN EXCLUSIVE")
        database = LocalDatabase(reactor, self.dialect)
        self.patch(local, "OPEN_ATTEMPTS", 2)
        with self.assertRaisesRegex(Unavailable, "locked"):
            database.open()


class CutLogTests(SqliteTestCase):
    """Something else than SQLite touches the write-ahead log while the database is open."""

    def setUp(self) -> None:
        super().setUp()
        self.ended: list[str] = []
        self.log = Path(f"{self.path}-wal")
        database = LocalDatabase(reactor, self.dialect, end=self.ended.append)
        database.open()
        self.addCleanup(database.close)
        self.catalog = SqlCatalog(database)

    async def fill(self, numbers: range) -> None:
        for number in numbers:
            await self.catalog.add_narinfo(entry(number), record(number))

    async def assert_ends(self, reason: str) -> None:
        """Check that the next write ends the process, and changes nothing."""
        before = self.path.read_bytes()
        with self.assertRaisesRegex(Unavailable, reason):
            await self.fill(range(500, 501))
        self.assertEqual(1, len(self.ended))
        self.assertIn(str(self.log), self.ended[0])
        self.assertEqual(before, self.path.read_bytes())

    def left(self) -> int:
        """Count the narinfos that the next process finds, in a database that is whole."""
        copy = self.path.parent / "copy.sqlite"
        copy.write_bytes(self.path.read_bytes())
        Path(f"{copy}-wal").write_bytes(self.log.read_bytes())
        with closing(sqlite3.connect(copy)) as connection:
            self.assertEqual([("ok",)], connection.execute("PRAGMA integrity_check").fetchall())
            return int(connection.execute("SELECT COUNT(*) FROM narinfos").fetchone()[0])

    async def test_a_log_that_was_cut_costs_its_end_alone(self) -> None:
        """The next process finds all transactions up to the cut."""
        await self.fill(range(20))
        size = self.log.stat().st_size
        await self.fill(range(20, 40))
        os.truncate(self.log, size + 1000)
        await self.assert_ends("was cut to")
        self.assertEqual(20, self.left())

    async def test_a_log_that_was_removed_or_replaced(self) -> None:
        """What took its place is none of ours."""
        await self.fill(range(3))
        aside = self.log.rename(self.log.with_suffix(".aside"))
        await self.assert_ends("was removed")
        self.ended.clear()
        self.log.write_bytes(aside.read_bytes())
        await self.assert_ends("was replaced")

    async def test_a_database_that_was_removed(self) -> None:
        """What is written into a file without a name is lost, and nobody would know."""
        await self.fill(range(3))
        self.path.unlink()
        with self.assertRaisesRegex(Unavailable, "was removed"):
            await self.fill(range(3, 4))
        self.assertEqual(1, len(self.ended))
        self.assertIn(str(self.path), self.ended[0])
        self.assertIn("ncps rebuild", self.ended[0])

    async def test_a_database_that_was_removed_is_not_read_for_ever(self) -> None:
        """A worker that writes nothing finds out, too."""
        self.path.unlink()
        with self.assertRaisesRegex(Unavailable, "was removed"):
            await self.catalog.totals()
        self.assertEqual(1, len(self.ended))

    async def test_a_database_that_was_replaced(self) -> None:
        """A backup that was put there is what the next process finds, without our log."""
        await self.fill(range(3))
        backup = self.path.with_suffix(".backup")
        with closing(sqlite3.connect(self.path)) as source, closing(sqlite3.connect(backup)) as to:
            source.backup(to)
        await self.fill(range(3, 40))
        backup.replace(self.path)
        with self.assertRaisesRegex(Unavailable, "was replaced"):
            await self.fill(range(500, 501))
        self.assertEqual(1, len(self.ended))
        self.assertFalse(self.log.exists())
        self.assertTrue(self.log.with_name(f"{self.log.name}.aside").exists())
        copy = self.path.with_suffix(".copy")
        copy.write_bytes(self.path.read_bytes())
        with closing(sqlite3.connect(copy)) as connection:
            self.assertEqual([("ok",)], connection.execute("PRAGMA integrity_check").fetchall())
            found = connection.execute("SELECT COUNT(*) FROM narinfos").fetchall()
        self.assertEqual([(3,)], found)

    def succeed(self) -> int:
        """Have another process open the database; return how many narinfos it finds."""
        command = [sys.executable, "-c", SUCCESSOR, str(self.path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        return int(done.stdout)

    async def test_a_successor_beside_a_worker_that_lives_on(self) -> None:
        """The one begins with a log and an index of its own, and keeps them when the other ends."""
        await self.fill(range(100))  # so that it grows
        other = WalGuard(self.path)
        other.open()
        self.addCleanup(other.close)
        self.path.unlink()
        with self.assertRaisesRegex(Unavailable, "was removed"):
            await self.fill(range(100, 101))
        self.assertEqual(0, self.succeed())
        files = [self.path, self.log, Path(f"{self.path}-shm")]
        before = [file.stat().st_ino for file in files]
        with self.assertRaisesRegex(WalCut, "was replaced"):
            other.check()
        self.assertEqual(before, [file.stat().st_ino for file in files])
        self.assertEqual(0, self.succeed())

    async def test_a_worker_that_has_written_nothing(self) -> None:
        """It knows the log of the others, and does not leave it beside another database."""
        with closing(sqlite3.connect(self.path)) as source:
            backup = self.path.with_suffix(".backup")
            with closing(sqlite3.connect(backup)) as to:
                source.backup(to)
            source.execute("UPDATE accounts SET bytes = 5")
            source.commit()
            backup.replace(self.path)
            with self.assertRaisesRegex(Unavailable, "was replaced"):
                await self.fill(range(1))
            self.assertFalse(self.log.exists())

    async def test_a_checkpoint_of_another_process_is_no_damage(self) -> None:
        """SQLite itself may shorten the log, once everything in it is in the database."""
        await self.fill(range(20))
        with closing(sqlite3.connect(self.path)) as other:
            (busy, *_), *_ = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self.assertEqual((0, 0), (busy, self.log.stat().st_size))
        await self.fill(range(20, 40))
        self.assertEqual([], self.ended)
        self.assertEqual(40, (await self.catalog.totals()).narinfos)


class DatabaseTests(SqliteTestCase):
    """How interactions run."""

    def setUp(self) -> None:
        super().setUp()
        self.database = self.opened(self.dialect)

    async def test_a_failing_write_leaves_nothing(self) -> None:
        """What a transaction did before it failed is undone."""

        def failing(txn: Any) -> None:
            nars.mark_stored(txn, stored(1))
            raise Corrupt("no")

        with self.assertRaises(Corrupt):
            await self.database.write(failing)
        self.assertIsNone(await self.database.read(nars.find, key_of(1)))

    async def test_a_cancelled_write_is_done_all_the_same(self) -> None:
        """Whoever stops waiting does not stop the transaction, and the next one comes after it."""
        write = start(self.database.write(nars.mark_stored, stored(1)))
        write.cancel()
        with self.assertRaises(CancelledError):
            await write
        await self.database.write(nars.mark_stored, stored(2))
        self.assertIsNotNone(await self.database.read(nars.find, key_of(1)))

    async def test_readers_cannot_write(self) -> None:
        """A write by mistake in a reading function is refused by the engine."""
        with self.assertRaises(StorageFull):
            await self.database.read(nars.touch, {key_of(1): EARLY})
        with self.assertRaises(StorageFull):
            await self.database.point(nars.mark_verified, stored(1, verified_at=EARLY))

    async def test_a_read_sees_one_state(self) -> None:
        """What is committed in the middle of a read is not seen by its second half."""
        between, committed = threading.Event(), threading.Event()

        def twice(txn: Any) -> tuple[int, int]:
            first = _stored(txn)
            between.set()
            committed.wait(10)
            return first, _stored(txn)

        read = start(self.database.read(twice))
        await self.database.read(lambda _txn: between.wait(10))
        await self.database.write(nars.mark_stored, stored(1))
        committed.set()
        self.assertEqual(await read, (0, 0))

    async def test_point_reads_stay_on_this_thread(self) -> None:
        """A point read hops to no thread, unless it would have to wait for a lock."""
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
        """What a write has returned from is seen by every read after it."""
        for number in range(20):
            await self.database.write(nars.mark_stored, stored(number))
            self.assertIsNotNone(await self.database.point(nars.find, key_of(number)))

    async def test_every_call_is_timed(self) -> None:
        """Metrics learn of each call, of which kind it was, failed ones included."""
        await self.database.point(nars.find, key_of(1))
        await self.database.read(nars.find, key_of(1))
        await self.database.write(nars.mark_verified, stored(1, verified_at=EARLY))
        with self.assertRaises(ZeroDivisionError):
            await self.database.read(lambda _txn: 1 // 0)
        self.assertEqual(self.seen, ["point", "read", "write", "read"])
