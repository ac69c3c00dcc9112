"""Free space, and the part of it that stays free."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Refused, Unavailable
from ncps.storage import room
from ncps.storage.room import Room, Volume, odd_place

MIB = 1024 * 1024
STORE, TEMPS = Path("/srv/ncps"), Path("/small")


class RoomTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.sizes = {STORE: (10_000 * MIB, 5_000 * MIB), TEMPS: (500 * MIB, 400 * MIB)}
        self.local = True
        self.patch(os, "statvfs", self.statvfs)
        self.patch(room, "is_local", lambda _: self.local)

    def statvfs(self, path: Path) -> SimpleNamespace:
        if path not in self.sizes:
            raise OSError(5, "Input/output error")
        total, free = self.sizes[path]
        return SimpleNamespace(f_frsize=MIB, f_blocks=total // MIB, f_bavail=free // MIB)

    def volume(self, path: Path, reserve: int, *, is_exact: bool = False) -> Volume:
        return Volume(directory=path, reserve=reserve, is_exact=is_exact)

    def test_a_small_file_system_keeps_a_tenth_free(self) -> None:
        """On a small file system the reserve is a tenth."""
        found = Room(self.volume(STORE, 1000 * MIB), self.volume(TEMPS, 1000 * MIB))
        self.assertEqual(found.spare(), 350 * MIB)
        self.assertEqual(list(found.check()), [])

    def test_least_of_all_file_systems_counts(self) -> None:
        """If a file must fit into two file systems, the one with less room counts."""
        self.sizes[STORE] = 10_000 * MIB, 1_100 * MIB
        found = Room(self.volume(STORE, 1000 * MIB), self.volume(TEMPS, 1000 * MIB))
        self.assertEqual(found.spare(), 100 * MIB)

    def test_a_reserve_that_was_given_is_kept(self) -> None:
        """A reserve that was given counts fully; one that is too large is refused at the start."""
        found = Room(self.volume(STORE, 4_990 * MIB, is_exact=True))
        self.assertEqual(found.spare(), 10 * MIB)
        self.assertEqual(list(found.check()), [])
        never = Room(self.volume(STORE, 10_000 * MIB, is_exact=True))
        error = self.assertRaises(Refused, list, never.check())
        self.assertIn("10000 MiB are to stay free in /srv/ncps, whose file system", str(error))

    def test_a_full_file_system_is_reported(self) -> None:
        """A full file system gives a warning, at the start and later."""
        self.sizes[STORE] = 10_000 * MIB, 999 * MIB
        found = Room(self.volume(STORE, 1000 * MIB), self.volume(TEMPS, 0))
        (line,) = found.check()
        self.assertIn("nothing new is kept: 999 MiB are free in /srv/ncps, and 1000 MiB", line)
        self.sizes[STORE] = 10_000 * MIB, 1001 * MIB
        found.look_blocking()
        self.assertEqual(found.trouble, "")

    def test_a_file_system_from_elsewhere_is_asked_by_threads(self) -> None:
        """The last answer of a thread counts."""
        self.local = False
        found = Room(self.volume(STORE, 1000 * MIB))
        self.assertRaises(Unavailable, found.spare)
        found.look_blocking()
        self.sizes[STORE] = 10_000 * MIB, 2_000 * MIB
        self.assertEqual(found.spare(), 4_000 * MIB)
        found.look_blocking()
        self.assertEqual(found.spare(), 1_000 * MIB)
        del self.sizes[STORE]
        found.look_blocking()
        self.assertRaises(Unavailable, found.spare)
        self.assertEqual(found.trouble, "")

    def test_an_unknown_size_is_not_full(self) -> None:
        """A file system that gives no size does not count as full."""
        self.assertRaises(Unavailable, Room(self.volume(Path("/gone"), 1)).spare)
        self.sizes[TEMPS] = 0, 0
        found = Room(self.volume(TEMPS, MIB, is_exact=True))
        self.assertEqual(list(found.check()), [])
        self.assertRaises(Unavailable, found.spare)
        self.assertEqual(Room(self.volume(STORE, 0), self.volume(TEMPS, 0)).spare(), 5_000 * MIB)


class PlaceTests(SynchronousTestCase):
    def test_downloads_beside_the_storage(self) -> None:
        """The warning names the cost of another file system, and of one in memory."""
        root = Path(self.mktemp())
        root.mkdir()
        self.assertEqual(odd_place(root, root), "")
        self.assertEqual(odd_place(Path("/nonexistent"), root), "")
        for kind, word in (("xfs", "copied once more"), ("tmpfs", "in memory")):
            with patch.object(room, "file_system_of", lambda _, kind=kind: kind):
                self.assertIn(word, odd_place(Path("/proc"), root))
