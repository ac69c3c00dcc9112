"""An SQLite database or log that another program has changed, and the processes beside it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as _reactor

from ncps.database.catalog import SqlCatalog
from ncps.database.local import LocalDatabase
from ncps.database.walguard import WalCut, WalGuard
from ncps.errors import Unavailable
from ncps.observe.metrics import Metrics
from tests.contract.samples import entry, record
from tests.integration.sqlite_database import SqliteTestCase

reactor = cast("Any", _reactor)


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


class CutLogTests(SqliteTestCase):
    """Another program changes the write-ahead log while the database is open."""

    def setUp(self) -> None:
        super().setUp()
        self.ended: list[str] = []
        self.log = Path(f"{self.path}-wal")
        database = LocalDatabase(reactor, self.dialect, Metrics(), end=self.ended.append)
        database.open()
        self.addCleanup(database.close)
        self.catalog = SqlCatalog(database)

    async def fill(self, numbers: range) -> None:
        for number in numbers:
            await self.catalog.add_narinfo(entry(number), record(number))

    async def assert_ends(self, reason: str) -> None:
        """Check that the next write ends the process and changes nothing."""
        before = self.path.read_bytes()
        with self.assertRaisesRegex(Unavailable, reason):
            await self.fill(range(500, 501))
        self.assertEqual(1, len(self.ended))
        self.assertIn(str(self.log), self.ended[0])
        self.assertEqual(before, self.path.read_bytes())

    def left(self) -> int:
        """Count the narinfos that the next process finds in an intact database."""
        copy = self.path.parent / "copy.sqlite"
        copy.write_bytes(self.path.read_bytes())
        Path(f"{copy}-wal").write_bytes(self.log.read_bytes())
        with closing(sqlite3.connect(copy)) as connection:
            self.assertEqual([("ok",)], connection.execute("PRAGMA integrity_check").fetchall())
            return int(connection.execute("SELECT COUNT(*) FROM narinfos").fetchone()[0])

    async def test_a_log_that_was_cut_costs_its_end_alone(self) -> None:
        """After a truncation the next process finds all transactions before it."""
        await self.fill(range(20))
        size = self.log.stat().st_size
        await self.fill(range(20, 40))
        os.truncate(self.log, size + 1000)
        await self.assert_ends("was cut to")
        self.assertEqual(20, self.left())

    async def test_a_log_that_was_removed_or_replaced(self) -> None:
        """ncps does not use another log in its place."""
        await self.fill(range(3))
        aside = self.log.rename(self.log.with_suffix(".aside"))
        await self.assert_ends("was removed")
        self.ended.clear()
        self.log.write_bytes(aside.read_bytes())
        await self.assert_ends("was replaced")

    async def test_a_database_that_was_removed(self) -> None:
        """Rows in a file without a name would be lost unnoticed."""
        await self.fill(range(3))
        self.path.unlink()
        with self.assertRaisesRegex(Unavailable, "was removed"):
            await self.fill(range(3, 4))
        self.assertEqual(1, len(self.ended))
        self.assertIn(str(self.path), self.ended[0])
        self.assertIn("ncps rebuild", self.ended[0])

    async def test_a_database_that_was_removed_is_not_read_for_ever(self) -> None:
        """A worker that does not write notices it, too."""
        self.path.unlink()
        with self.assertRaisesRegex(Unavailable, "was removed"):
            await self.catalog.totals()
        self.assertEqual(1, len(self.ended))

    async def test_a_database_that_was_replaced(self) -> None:
        """The next process uses the restored backup, without our log."""
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
        """Open the database in another process; return the number of narinfos there."""
        command = [sys.executable, "-c", SUCCESSOR, str(self.path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        return int(done.stdout)

    async def test_a_successor_beside_a_worker_that_lives_on(self) -> None:
        """The successor has a log and an index of its own, and keeps them when the worker ends."""
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
        """The worker knows the log of the others, and does not keep it beside another database."""
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
        """SQLite itself may shorten the log when all of it is in the database."""
        await self.fill(range(20))
        with closing(sqlite3.connect(self.path)) as other:
            (busy, *_), *_ = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self.assertEqual((0, 0), (busy, self.log.stat().st_size))
        await self.fill(range(20, 40))
        self.assertEqual([], self.ended)
        self.assertEqual(40, (await self.catalog.totals()).narinfos)
