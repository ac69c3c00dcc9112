"""Tests of small files that are written together."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import StorageFull, Unavailable
from ncps.nix.hashes import sha256_of
from ncps.storage import keys
from ncps.storage.small_files import SmallFile, write_small
from ncps.storage.tree import Tree
from tests.contract.samples import digest_of, key_of


def nar(number: int, data: bytes) -> SmallFile:
    key = key_of(number)
    aside = keys.quarantine_key(key, f"17-{number:016x}")
    return SmallFile(key=keys.nar_key(key), data=data, digest=sha256_of(data).digest, aside=aside)


def sidecar(number: int, data: bytes) -> SmallFile:
    return SmallFile(key=keys.narinfo_key(digest_of(number)), data=data)


class SmallFilesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.tree = Tree(self.root)
        self.tree.probe()
        self.events: list[tuple[str, str]] = []

    def path(self, file: SmallFile) -> Path:
        return self.root / file.key

    def watch(self) -> None:
        """Record each sync and each rename, in order."""
        fsync, rename = os.fsync, os.rename

        def synced(fd: int) -> None:
            fsync(fd)
            self.events.append(("sync", os.readlink(f"/proc/self/fd/{fd}")))  # noqa: PTH115

        def renamed(source: Path, target: str) -> None:
            rename(source, target)
            self.events.append(("rename", str(target)))

        self.patch(os, "fsync", synced)
        self.patch(os, "rename", renamed)

    def assert_no_temps(self) -> None:
        self.assertEqual(list(self.tree.temps.directory.iterdir()), [])

    def test_all_bytes_are_on_disk_before_a_name_and_all_names_afterwards(self) -> None:
        """Each file is synced, then renamed; then each directory with a new name, once."""
        files = [nar(number, b"%d" % number) for number in range(1, 30)] + [sidecar(1, b"text")]
        self.watch()
        write_small(self.tree, files)
        kinds = [kind for kind, _ in self.events]
        self.assertEqual(kinds[: 2 * len(files)], ["sync"] * len(files) + ["rename"] * len(files))
        renamed = [path for kind, path in self.events if kind == "rename"]
        self.assertEqual(renamed, [str(self.path(file)) for file in files])
        synced = [path for _, path in self.events[2 * len(files) :]]
        self.assertEqual(len(synced), len(set(synced)))
        new = {path.parent for path in map(self.path, files)}
        new |= {parent.parent for parent in new} | {
            self.root / keys.NARS,
            self.root / keys.NARINFOS,
        }
        self.assertEqual(set(synced), {str(path) for path in new})
        for file in files:
            self.assertEqual(self.path(file).read_bytes(), file.data)
            self.assertEqual(stat.S_IMODE(self.path(file).stat().st_mode), 0o400)
        self.assert_no_temps()

    def test_the_properties_are_those_of_the_file(self) -> None:
        """Size, time and inode are those of the file."""
        (made,) = write_small(self.tree, [nar(1, b"some bytes")])
        assert isinstance(made, tuple)
        facts, found = made[0], self.path(nar(1, b"")).stat()
        for name in ("st_size", "st_mtime_ns", "st_ino"):
            self.assertEqual(getattr(facts, name), getattr(found, name))

    def test_one_that_fails_takes_no_other_with_it(self) -> None:
        """If one file finds no room, it leaves nothing; the others are written."""
        files = [nar(number, b"%d" % number) for number in range(3)]
        write = os.write

        def full(fd: int, data: bytes) -> int:
            if bytes(data) == b"1":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(fd, data)

        self.patch(os, "write", full)
        made = write_small(self.tree, files)
        self.assertIsInstance(made[1], StorageFull)
        self.assertEqual([self.path(file).exists() for file in files], [True, False, True])
        self.assert_no_temps()

    def test_names_that_may_not_be_durable_are_no_success(self) -> None:
        """If a directory cannot be synced, all files fail."""
        self.watch()

        def failing(fd: int) -> None:
            if os.path.isdir(f"/proc/self/fd/{fd}"):  # noqa: PTH112
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        self.patch(os, "fsync", failing)
        made = write_small(self.tree, [nar(number, b"%d" % number) for number in range(3)])
        for outcome in made:
            self.assertIsInstance(outcome, Unavailable)
        self.assert_no_temps()
        self.patch(os, "fsync", lambda fd: self.events.append(("sync", str(fd))))
        del self.events[:]
        write_small(self.tree, [nar(0, b"other bytes")])
        self.assertTrue([event for event in self.events if event[0] == "sync"][1:])

    def test_two_files_with_one_key(self) -> None:
        """Of two files with one key, the last one stays."""
        write_small(self.tree, [sidecar(1, b"first"), sidecar(1, b"second")])
        self.assertEqual(self.path(sidecar(1, b"")).read_bytes(), b"second")

    def test_a_shard_that_another_process_has_pruned_is_made_again(self) -> None:
        """A shard directory that another process has removed is made again."""
        write_small(self.tree, [nar(1, b"some bytes")])
        path = self.path(nar(1, b""))
        path.unlink()
        path.parent.rmdir()
        path.parent.parent.rmdir()
        self.watch()
        (made,) = write_small(self.tree, [nar(1, b"some bytes")])
        self.assertIsInstance(made, tuple)
        self.assertEqual(path.read_bytes(), b"some bytes")
        synced = {where for kind, where in self.events if kind == "sync"}
        for parent in (path.parent, path.parent.parent, path.parent.parent.parent):
            self.assertIn(str(parent), synced)
