"""Tests of lock files."""

import os
import socket
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.lockfile import LockFile
from ncps.database.lock import DatabaseLock
from ncps.errors import Refused
from ncps.storage.lock import StoreLock


class LockFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    def lock(self) -> LockFile:
        lock = LockFile(self.path, "the thing")
        self.addCleanup(lock.release)
        return lock

    def test_the_second_learns_the_first(self) -> None:
        """The error for a held lock names thing, process, machine, time and lock file."""
        first = self.lock()
        first.acquire()
        second = self.lock()
        message = str(self.assertRaises(Refused, second.acquire))
        for part in ("the thing", f"process {os.getpid()}", socket.gethostname(), str(self.path)):
            self.assertIn(part, message)
        self.assertRegex(message, r"started 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ")
        first.release()
        second.acquire()

    def test_a_released_lock_is_free(self) -> None:
        """After a release the next process gets the lock, and the file names no holder."""
        first = self.lock()
        first.acquire()
        first.release()
        first.release()
        self.assertEqual(self.path.read_bytes(), b"")
        self.lock().acquire()

    def test_a_leftover_file_is_no_lock(self) -> None:
        """The text of a dead process is replaced, and delays no other process."""
        self.path.write_text("process 1 on elsewhere, started long ago, with a long line\nmore\n")
        self.lock().acquire()
        self.assertNotIn("elsewhere", self.path.read_text())
        self.assertEqual(self.path.read_text().count("\n"), 1)

    def test_a_holder_without_a_text_holds_the_lock(self) -> None:
        """A lock without text, or with invalid bytes, is refused as well."""
        self.lock().acquire()
        os.truncate(self.path, 0)
        self.assertIn("another process", str(self.assertRaises(Refused, self.lock().acquire)))
        self.path.write_bytes(b"\xff\xfe\n")
        self.assertRaises(Refused, self.lock().acquire)

    def test_taking_twice_is_refused(self) -> None:
        """One object can take the lock only once."""
        lock = self.lock()
        lock.acquire()
        self.assertRaises(Refused, lock.acquire)
        self.assertRaises(Refused, self.lock().acquire)

    def test_a_file_that_cannot_be_opened_is_named(self) -> None:
        """A missing directory is a start-up error that names the path."""
        lock = LockFile(self.path / "missing", "the thing")
        self.assertIn(str(self.path), str(self.assertRaises(Refused, lock.acquire)))

    def test_store_and_database_lock_their_own_places(self) -> None:
        """Each lock lies beside the guarded files, and its message names them."""
        (self.path / "store").mkdir(parents=True)
        for lock, place in (
            (StoreLock(self.path), self.path / "store" / "ncps.lock"),
            (DatabaseLock(self.path / "db.sqlite"), self.path / "db.sqlite.lock"),
        ):
            lock.acquire()
            self.addCleanup(lock.release)
            self.assertTrue(place.exists())
        message = str(self.assertRaises(Refused, StoreLock(self.path).acquire))
        self.assertIn(f"the store in {self.path}", message)
        self.assertIn("directory of its own by cache-storage-local", message)
        message = str(self.assertRaises(Refused, DatabaseLock(self.path / "db.sqlite").acquire))
        self.assertIn(f"the database {self.path}/db.sqlite", message)
        self.assertIn("database of its own by cache-database-url", message)

    def test_a_copy_of_the_descriptor_holds_the_lock(self) -> None:
        """A child process holds the lock as well; it is free when the last holder has ended."""
        first = self.lock()
        first.acquire()
        copy = os.dup(first.fd)
        first.release()
        self.assertRaises(Refused, self.lock().acquire)
        os.close(copy)
        self.lock().acquire()
