"""Tests of unfinished files."""

import os
import shutil
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Unavailable
from ncps.storage import temps
from ncps.storage.temps import Temps


class TempsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.temps = Temps(self.directory)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir())

    def test_a_new_file_is_private_and_empty(self) -> None:
        """Other users cannot read an unfinished download."""
        temp = self.temps.create()
        self.addCleanup(temp.close)
        facts = temp.path.stat()
        self.assertEqual((facts.st_mode & 0o777, facts.st_size), (0o600, 0))
        self.assertTrue(temp.path.name.startswith(f"spool-{os.getpid()}-"))

    def test_written_bytes_can_be_read(self) -> None:
        """All bytes can be read in order from the same descriptor."""
        temp = self.temps.create("temp")
        self.addCleanup(temp.close)
        temp.write(b"some ")
        temp.write(b"bytes")
        self.assertEqual(os.pread(temp.fd, 100, 0), b"some bytes")

    def test_discarding_takes_the_name_and_leaves_the_bytes(self) -> None:
        """An open file can be read after `discard`; a second `discard` does nothing."""
        temp = self.temps.create()
        temp.write(b"some bytes")
        temp.discard()
        temp.discard()
        self.assertEqual(self.names(), [])
        self.assertEqual(os.pread(temp.fd, 100, 0), b"some bytes")
        temp.close()
        temp.close()

    def test_a_published_file_is_not_discarded(self) -> None:
        """`discard` does not remove a renamed file."""
        temp = self.temps.create()
        target = self.directory / "published"
        temp.path.rename(target)
        temp.discard()
        temp.close()
        self.assertTrue(target.exists())

    def test_an_unusable_directory_is_reported_with_its_setting(self) -> None:
        """The message at the start names the setting and the remedy."""
        absent = Temps(self.directory / "absent")
        self.assertRegex(
            str(self.assertRaises(Unavailable, absent.probe)),
            r"\Acache-temp-path: \S+/absent cannot be written: No such file or directory; make it a"
            r" directory that the user \S+ may write to, or name another one by cache-temp-path\Z",
        )

    def test_a_sweep_removes_only_unlocked_files(self) -> None:
        """A sweep removes files of dead processes; files in use and of other programs stay."""
        used = self.temps.create()
        self.addCleanup(used.close)
        leftover = self.temps.create("temp")
        leftover.close()
        sealed = self.temps.create()
        sealed.path.chmod(0o400)
        sealed.close()
        stranger = self.directory / "nar-1234.tmp"
        stranger.write_bytes(b"")
        self.assertEqual(self.temps.sweep(), 2)
        self.assertEqual(self.names(), sorted([used.path.name, stranger.name]))
        self.assertEqual(self.temps.sweep(), 0)

    def test_a_sweep_beside_others_leaves_new_files(self) -> None:
        """A new name stays, even without a lock, and even if its file is old."""
        old = self.directory / "old"
        old.write_bytes(b"")
        os.utime(old, (0, 0))
        os.link(old, self.temps.name("temp"))
        self.temps.create().close()
        self.assertEqual(0, self.temps.sweep(60.0))
        now = time.time()
        self.patch(time, "time", lambda: now + 61.0)
        self.assertEqual(2, self.temps.sweep(60.0))
        self.assertEqual(["old"], self.names())

    def test_a_sweep_ignores_links_and_pipes(self) -> None:
        """A link or a pipe with such a name neither blocks nor redirects a sweep."""
        precious = self.directory / "precious"
        precious.write_bytes(b"")
        (self.directory / "spool-1-0123456789abcdef").symlink_to(precious)
        os.mkfifo(self.directory / "spool-1-fedcba9876543210")
        self.temps.sweep()
        self.assertTrue(precious.exists())

    def test_a_sweep_at_the_moment_of_creation_does_no_harm(self) -> None:
        """If a sweep removes a file before its lock, another file is made."""
        lock = temps._lock
        swept: list[bool] = []

        def late_lock(fd: int) -> bool:
            if not swept:
                swept.append(True)
                self.patch(temps, "_lock", lock)
                self.assertEqual(self.temps.sweep(), 1)
            return lock(fd)

        self.patch(temps, "_lock", late_lock)
        temp = self.temps.create()
        self.addCleanup(temp.close)
        self.assertEqual(self.names(), [temp.path.name])

    def test_a_directory_that_is_gone_is_an_error(self) -> None:
        """Without the directory, creation, sweep and probe raise errors."""
        gone = Temps(self.directory / "gone")
        self.assertRaises(Unavailable, gone.create)
        self.assertRaises(Unavailable, gone.sweep)
        self.assertRaises(Unavailable, gone.probe)

    def test_a_directory_that_was_removed_is_made_again(self) -> None:
        """The directory is private again; its parent is not made, as a disk may not be mounted."""
        self.assertFalse(self.temps.mend())
        shutil.rmtree(self.directory)
        self.assertTrue(self.temps.mend())
        self.assertEqual(0o700, self.directory.stat().st_mode & 0o777)
        self.temps.create().close()
        self.assertRaises(Unavailable, Temps(self.directory / "gone" / "temps").mend)

    def test_a_probe_leaves_nothing(self) -> None:
        """The probe leaves no file."""
        self.temps.probe()
        self.assertEqual(self.names(), [])
