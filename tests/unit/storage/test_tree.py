"""Tests of the start of a tree."""

import errno
import os
from pathlib import Path
from unittest.mock import Mock

from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Refused, StorageFull, Unavailable
from ncps.storage import keys, os_errors
from ncps.storage.tree import Tree


class ProbeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute() / "deep" / "root"

    def test_a_missing_root_is_made_with_its_parents(self) -> None:
        """The first start makes every directory, private to this user."""
        Tree(self.root).probe()
        for name in (".", keys.NARS, keys.NARINFOS, keys.TEMPS, keys.QUARANTINE, keys.CONFIG):
            self.assertEqual((self.root / name).stat().st_mode & 0o777, 0o700)
        self.assertEqual(list((self.root / keys.TEMPS).iterdir()), [])

    def test_an_existing_tree_is_left_as_it_is(self) -> None:
        """A second start changes nothing."""
        Tree(self.root).probe()
        (self.root / "store" / "chunk").mkdir()
        self.root.chmod(0o755)
        Tree(self.root).probe()
        self.assertEqual(self.root.stat().st_mode & 0o777, 0o755)
        self.assertTrue((self.root / "store" / "chunk").exists())

    def test_a_relative_path_is_refused(self) -> None:
        """The meaning of a path must not depend on where the daemon was started."""
        error = self.assertRaises(Refused, Tree(Path("cache")).probe)
        self.assertIn("absolute", str(error))

    def test_a_file_in_the_way_is_named(self) -> None:
        """A file in the place of a directory is an error at the start that names it."""
        self.root.parent.mkdir(parents=True)
        self.root.write_bytes(b"")
        error = self.assertRaises(Refused, Tree(self.root).probe)
        self.assertIn(str(self.root), str(error))
        error = self.assertRaises(Refused, Tree(self.root / "below").probe)
        self.assertIn(str(self.root), str(error))
        self.assertIn("cache-storage-local should name a directory", str(error))

    def test_a_sync_that_fails_names_the_root(self) -> None:
        """The error of a failed sync names the root."""
        tree = Tree(self.root)
        failing = Mock(side_effect=OSError(errno.EROFS, os.strerror(errno.EROFS)))
        self.patch(tree.directories, "make_parents", failing)
        error = self.assertRaises(Refused, tree.probe)
        self.assertIn(f"{self.root} cannot be made: Read-only", str(error))

    def test_a_root_that_cannot_be_made_is_reported_with_a_remedy(self) -> None:
        """The message names the setting and the remedy."""
        error = self.assertRaises(Refused, Tree(Path("/proc/ncps")).probe)
        self.assertRegex(
            str(error),
            r"\Acache-storage-local: /proc/ncps cannot be made: No such file or directory; make it"
            r" a directory that the user \S+ may write to, or name another one by"
            r" cache-storage-local\Z",
        )

    def test_a_directory_without_leave_to_write_is_refused(self) -> None:
        """A root without the right to write is an error at the start."""
        Tree(self.root).probe()
        self.patch(os, "access", lambda *_: False)
        error = self.assertRaises(Refused, Tree(self.root).probe)
        self.assertIn("cache-storage-local: ", str(error))
        self.assertIn("not writable", str(error))
        self.assertIn("may write to, or name another one by cache-storage-local", str(error))

    def test_a_full_disk_is_distinguished_from_an_unusable_one(self) -> None:
        """A start on a full disk raises StorageFull: stored files can be served."""
        Tree(self.root).probe()

        def full(fd: int, data: bytes) -> int:
            raise OSError(28, "No space left on device")

        self.patch(os, "write", full)
        error = self.assertRaises(StorageFull, Tree(self.root).probe)
        self.assertIn("make room there, or name another one by cache-storage-local", str(error))
        self.assertEqual(list((self.root / keys.TEMPS).iterdir()), [])


class OSErrorsTests(SynchronousTestCase):
    def write(self, number: int) -> None:
        with os_errors.writing("x"):
            raise OSError(number, os.strerror(number))

    def read(self, number: int) -> None:
        with os_errors.reading("x"):
            raise OSError(number, os.strerror(number))

    def test_no_room_and_no_leave_are_a_full_store(self) -> None:
        """ENOSPC, EDQUOT, EROFS, EACCES and EPERM in writing become StorageFull."""
        for number in (28, 122, 30, 13, 1):
            self.assertRaises(StorageFull, self.write, number)

    def test_everything_else_is_unavailable(self) -> None:
        """Other errors, and all errors of reading, become Unavailable."""
        for number in (5, 116, 110):
            self.assertRaises(Unavailable, self.write, number)
        for number in (28, 13, 5, 116):
            self.assertRaises(Unavailable, self.read, number)


class AbsenceTests(SynchronousTestCase):
    def test_a_tree_that_cannot_be_looked_at_has_lost_no_object(self) -> None:
        """An error of the look for the tree is Unavailable, and not that the object is absent."""
        tree = Tree(Path(self.mktemp()).absolute())
        tree.probe()
        self.assertIsNone(tree.first_of(["store/nar/absent"]))
        failing = Mock(side_effect=OSError(errno.EIO, os.strerror(errno.EIO)))
        self.patch(Path, "is_dir", failing)
        self.assertRaises(Unavailable, tree.first_of, ["store/nar/absent"])
        self.assertRaises(Unavailable, lambda: list(tree.walk(keys.NARS)))
