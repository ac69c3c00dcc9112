"""Tests of blobs and stores in a local directory: their contracts, and behaviour of their own."""

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable
from datetime import UTC
from pathlib import Path
from unittest.mock import patch

from ncps.errors import Corrupt, NotFound, Unavailable
from ncps.ports import Replaced, Stat
from ncps.storage import directory, keys
from ncps.storage.calls import Calls
from ncps.storage.directory import DirectoryBlobs
from ncps.storage.stores import BlobNarStore
from tests.contract.body import DATA, content
from tests.contract.nar_store import NarStoreContract
from tests.contract.running import synchronously
from tests.contract.samples import key_of, spooled
from tests.unit.storage.rig import LocalTestCase


def modes(root: Path) -> set[tuple[bool, int]]:
    """Return kinds (whether a directory) and permissions below `root`."""
    found: set[tuple[bool, int]] = set()
    for folder, _, files in os.walk(root):
        for path in [Path(folder), *(Path(folder) / name for name in files)]:
            mode = path.stat().st_mode
            found.add((stat.S_ISDIR(mode), stat.S_IMODE(mode)))
    return found


def shards(root: Path, base: str) -> list[str]:
    """Return the directories below a base of the store."""
    return sorted(path.name for path in (root / base).rglob("*") if path.is_dir())


def open_descriptors() -> int:
    """Return how many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@synchronously
class LocalNarStoreTests(NarStoreContract, LocalTestCase):
    store: BlobNarStore
    reopens = True

    def setUp(self) -> None:
        super().setUp()
        self.sources = self.root / "store" / "sources"
        self.calls = Calls(self.workers, is_local=True)
        self.store = BlobNarStore(DirectoryBlobs(self.tree, self.workers, self.calls))

    def file_of(self, number: int) -> Path:
        return self.root / keys.nar_key(key_of(number))

    async def test_files_are_read_only_and_private(self) -> None:
        """NARs are 0400 in directories 0700."""
        await self.publish(key_of(1), b"some bytes")
        self.sources.rmdir()
        self.assertEqual(modes(self.root), {(True, 0o700), (False, 0o400)})

    async def test_a_spool_is_published_by_rename(self) -> None:
        """Bytes received in the store's own directory are not copied."""
        spool = self.tree.temps.create()
        spool.write(b"some bytes")
        source = spooled(self.sources, b"some bytes")
        source.path.replace(spool.path)
        number = spool.path.stat().st_ino
        await self.store.publish(
            key_of(1), type(source)(path=spool.path, size=10, sha256=source.sha256)
        )
        self.assertEqual(self.file_of(1).stat().st_ino, number)
        spool.discard()
        spool.close()
        self.assertEqual(await self.read(key_of(1)), b"some bytes")

    async def test_empty_shards_go_with_their_last_object(self) -> None:
        """Deleting and setting aside remove empty shard directories."""
        await self.publish(key_of(1), b"some bytes")
        await self.publish(key_of(2), b"some bytes")
        self.assertEqual(len(shards(self.root, keys.NARS)), 4)
        await self.store.delete(key_of(1))
        self.assertEqual(len(shards(self.root, keys.NARS)), 2)
        await self.store.quarantine(key_of(2))
        self.assertEqual(shards(self.root, keys.NARS), [])
        self.assertTrue((self.root / keys.NARS).is_dir())

    async def test_quarantined_files_are_kept_for_the_operator(self) -> None:
        """Each file in the quarantine has the NAR's name and the time."""
        times: Iterable[float] = iter([1.0, 2.5, 2.5])
        store = BlobNarStore(self.new_blobs(), now=lambda: next(iter(times)))
        for data in (b"one", b"two", b"three"):
            await self.publish(key_of(1), data)
            await store.quarantine(key_of(1))
        aside = {path.read_bytes(): path.name for path in (self.root / keys.QUARANTINE).iterdir()}
        for data, time in ((b"one", "1000000"), (b"two", "2500000"), (b"three", "2500000")):
            self.assertRegex(aside[data], rf"\A{key_of(1).file_name}\.{time}-[0-9a-f]{{16}}\Z")

    async def test_nothing_of_another_make_is_taken_for_set_aside(self) -> None:
        """Other names, links, directories and deeper files do not belong to the quarantine."""
        await self.publish(key_of(1), b"damaged")
        await self.store.quarantine(key_of(1))
        aside, name = self.root / keys.QUARANTINE, key_of(2).file_name
        for stranger in ("README", name, f"{name}.17~", f"{name}.notes", f"x{name}.17"):
            (aside / stranger).write_bytes(b"x")
        (aside / f"{name}.18").mkdir()
        (aside / f"{name}.19").symlink_to(aside / "README")
        (aside / "kept").mkdir()
        (aside / "kept" / f"{name}.20").write_bytes(b"x")
        self.assertEqual([(key_of(1).file_name, 7)], await self.set_aside())
        (aside / f"{name}.21").write_bytes(b"of an earlier version")
        self.assertEqual(2, len(await self.set_aside()))

    async def test_the_quarantine_stays_when_it_is_empty(self) -> None:
        """The empty quarantine keeps its directory, which a full disk might not allow to make."""
        await self.publish(key_of(1), b"damaged")
        await self.store.quarantine(key_of(1))
        async for aside in self.store.walk_quarantine():
            await self.store.discard(aside)
        self.assertEqual([], list((self.root / keys.QUARANTINE).iterdir()))

    async def test_a_quarantine_that_is_gone_is_empty(self) -> None:
        """A removed quarantine counts as empty."""
        (self.root / keys.QUARANTINE).rmdir()
        self.assertEqual([], await self.set_aside())
        await self.publish(key_of(1), b"damaged")
        await self.store.quarantine(key_of(1))
        self.assertEqual([(key_of(1).file_name, 7)], await self.set_aside())

    async def test_a_file_cut_while_it_is_read_is_corrupt(self) -> None:
        """A file that is truncated after its opening is Corrupt."""
        await self.publish(key_of(1), DATA)
        body = await self.store.open(key_of(1))
        os.truncate(self.file_of(1), 300_000)
        await self.assert_raises(Corrupt, content(body))

    async def test_a_read_that_fails_is_not_the_end_of_the_file(self) -> None:
        """A lost sector is Corrupt; every other error of a read is Unavailable."""
        await self.publish(key_of(1), DATA)
        for number, kind in (
            (errno.EIO, Corrupt),
            (errno.EUCLEAN, Corrupt),
            (errno.ESTALE, Unavailable),
        ):
            body = await self.store.open(key_of(1))

            def broken(*_: object, number: int = number) -> bytes:
                raise OSError(number, os.strerror(number))

            with patch.object(os, "preadv", broken), patch.object(os, "pread", broken):
                await self.assert_raises(kind, content(body))

    async def test_files_in_memory_need_no_thread(self) -> None:
        """A new NAR is opened and read without a thread."""
        await self.publish(key_of(1), DATA)
        await self.read(key_of(1))
        self.workers.calls = 0
        self.assertEqual(await self.read(key_of(1)), DATA)
        self.assertEqual(self.workers.calls, 0)

    async def test_files_not_in_memory_are_left_to_threads(self) -> None:
        """If the kernel would wait, a thread makes the call."""
        await self.publish(key_of(1), DATA)

        def preadv(fd: int, buffers: list[memoryview], offset: int, flags: int) -> int:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

        self.workers.calls = 0
        with (
            patch.object(os, "preadv", preadv),
            patch.object(directory, "open_now", lambda _: None),
        ):
            self.assertEqual(await self.read(key_of(1)), DATA)
        self.assertEqual(self.workers.calls, 4)

    async def test_readers_keep_what_they_have_opened(self) -> None:
        """A NAR that is deleted during a read is read to its end."""
        await self.publish(key_of(1), DATA)
        body = await self.store.open(key_of(1))
        await self.store.delete(key_of(1))
        self.assertEqual(await content(body), DATA)

    async def test_an_unmounted_disk_has_lost_nothing(self) -> None:
        """If the whole tree is missing, no object counts as absent."""
        await self.publish(key_of(1), b"damaged")
        await self.store.quarantine(key_of(1))
        (aside,) = [found async for found in self.store.walk_quarantine()]
        await self.publish(key_of(1), b"some bytes")
        self.root.rename(self.root.with_name("away"))
        self.root.mkdir()
        await self.assert_raises(Unavailable, self.store.stat(key_of(1)))
        await self.assert_raises(Unavailable, self.store.open(key_of(1)))
        await self.assert_raises(Unavailable, self.store.delete(key_of(1)))
        await self.assert_raises(Unavailable, self.store.quarantine(key_of(1)))
        await self.assert_raises(Unavailable, self.walked())
        await self.assert_raises(Unavailable, self.set_aside())
        await self.assert_raises(Unavailable, self.store.discard(aside))
        await self.assert_raises(Unavailable, self.publish(key_of(2), b"some bytes"))
        shutil.rmtree(self.root)
        self.root.with_name("away").rename(self.root)

    async def test_odd_things_under_a_key_are_not_objects(self) -> None:
        """Other things than files are not served; they are set aside if a NAR is stored there."""
        odd: dict[int, Callable[[Path], object]] = {
            1: Path.mkdir,
            2: os.mkfifo,
            3: lambda path: path.symlink_to(path),
        }
        for number, make in odd.items():
            self.file_of(number).parent.mkdir(parents=True, exist_ok=True)
            make(self.file_of(number))
            self.assertIsNone(await self.store.stat(key_of(number)))
            await self.assert_raises(Corrupt, self.store.open(key_of(number)))
        self.assertEqual(await self.walked(), [])
        self.assertFalse(await self.store.delete(key_of(1)))
        for number, make in odd.items():
            self.assertTrue(await self.store.quarantine(key_of(number)))
            await self.assert_raises(NotFound, self.store.open(key_of(number)))
            self.file_of(number).parent.mkdir(parents=True, exist_ok=True)
            make(self.file_of(number))
            await self.publish(key_of(number), b"some bytes")
            self.assertEqual(await self.read(key_of(number)), b"some bytes")
        self.assertEqual(len(list((self.root / keys.QUARANTINE).iterdir())), 6)

    async def test_a_file_where_a_directory_should_be(self) -> None:
        """Below a file there are no objects: they are absent."""
        self.file_of(1).parent.parent.mkdir()
        self.file_of(1).parent.write_bytes(b"")
        self.assertIsNone(await self.store.stat(key_of(1)))
        await self.assert_raises(NotFound, self.store.open(key_of(1)))
        self.assertFalse(await self.store.quarantine(key_of(1)))

    async def test_a_file_replaced_with_its_time_restored(self) -> None:
        """A replaced file gets another tag; a file with a further hard link keeps its tag."""
        stored = await self.publish_again(1)
        os.link(self.file_of(1), self.root / "backup")
        (await self.store.open(key_of(1), tag=stored.tag)).close()
        (await self.store.open(key_of(1), tag=stored.tag.partition("-")[0])).close()
        facts = self.file_of(1).stat()
        other = self.root / "other"
        other.write_bytes(b"SOME BYTES")
        os.utime(other, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        other.replace(self.file_of(1))
        for _ in range(2):
            opening = self.store.open(key_of(1), size=10, tag=stored.tag)
            await self.assert_raises(Replaced, opening)

    async def publish_again(self, number: int) -> Stat:
        await self.publish(key_of(number), b"some bytes")
        stored = await self.store.stat(key_of(number))
        assert stored is not None
        return stored

    async def test_a_tree_of_the_go_program_is_read(self) -> None:
        """Files of the Go program are served, walked and removed; other files are not."""
        nar = self.file_of(1)
        nar.parent.mkdir(parents=True, mode=0o755)
        nar.write_bytes(b"some bytes")
        nar.chmod(0o644)
        for stranger in ("README", "cut.nar.xz", key_of(2).file_name, nar.name + ".tmp"):
            (nar.parent / stranger).write_bytes(b"")
        (self.root / keys.NARS / "loose").write_bytes(b"")
        (nar.parent / "deeper").mkdir()
        self.assertEqual(await self.walked(), [(key_of(1).file_name, 10)])
        self.assertEqual(await self.read(key_of(1)), b"some bytes")
        self.assertTrue(await self.store.delete(key_of(1)))

    async def test_walks_survive_deletions(self) -> None:
        """Objects and directories that are deleted during a walk do not break it."""
        for number in range(20):
            await self.publish(key_of(number), b"x")
        walk = self.store.walk().__aiter__()
        seen = [(await anext(walk)).key]
        for number in range(20):
            await self.store.delete(key_of(number))
        seen += [found.key async for found in walk]
        self.assertTrue(set(seen) <= {key_of(number) for number in range(20)})

    async def test_a_shard_that_is_pruned_meanwhile_is_made_again(self) -> None:
        """A shard directory that is removed before the rename is made again."""
        pruned: list[str] = []
        real = os.rename

        def rename(source: Path, target: str) -> None:
            if len(pruned) < 3:
                pruned.append(target)
                self.tree.directories.prune(target)
            real(source, target)

        self.patch(os, "rename", rename)
        await self.publish(key_of(1), b"some bytes")
        self.assertEqual(len(pruned), 3)
        self.assertEqual(await self.read(key_of(1)), b"some bytes")

    async def test_a_file_from_an_impossible_year_has_a_time_nevertheless(self) -> None:
        """A file with an impossible time does not break a walk."""
        for seconds in (1e15, -1e15, float("inf")):
            self.assertEqual(UTC, directory._moment(seconds).tzinfo)

    async def test_a_shard_that_is_pruned_while_it_is_looked_at_is_made_again(self) -> None:
        """A shard directory that is removed while it is checked is made again."""
        there: list[Path] = []
        real = Path.mkdir

        def mkdir(path: Path, mode: int = 0o777, **others: bool) -> None:
            if path.parent.name == "nar" and not there:
                there.append(path)
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
            real(path, mode, **others)

        self.patch(Path, "mkdir", mkdir)
        await self.publish(key_of(1), b"some bytes")
        self.assertEqual(len(there), 1)
        self.assertEqual(await self.read(key_of(1)), b"some bytes")

    async def test_the_name_is_on_disk_before_the_call_returns(self) -> None:
        """File and new directories are synced before the call returns; known ones only once."""
        synced: list[str] = []
        real = os.fsync

        def fsync(fd: int) -> None:
            synced.append(str(Path(f"/proc/self/fd/{fd}").readlink().relative_to(self.root)))
            real(fd)

        self.patch(os, "fsync", fsync)
        source = spooled(self.sources, b"some bytes")
        await self.store.publish(key_of(1), source)
        shard = keys.nar_key(key_of(1)).rpartition("/")[0]
        upper = shard.rpartition("/")[0]
        self.assertEqual(synced, [f"store/sources/{source.path.name}", "store/nar", upper, shard])
        del synced[:]
        await self.publish(key_of(1), b"other bytes")
        self.assertEqual(synced[1:], [shard])

    async def test_another_file_system_is_copied_from(self) -> None:
        """A source that cannot be renamed is copied, checked and removed."""
        real = os.rename

        def rename(source: Path, target: str) -> None:
            if Path(source).parent == self.sources:
                raise OSError(18, "Invalid cross-device link")
            real(source, target)

        self.patch(os, "rename", rename)
        await self.publish(key_of(1), DATA)
        self.assertEqual(await self.read(key_of(1)), DATA)
        self.assertEqual(list(self.sources.iterdir()), [])
        source = spooled(self.sources, DATA)
        source.path.write_bytes(bytes(len(DATA)))
        await self.assert_raises(Corrupt, self.store.publish(key_of(2), source))
        self.assertIsNone(await self.store.stat(key_of(2)))

    async def test_no_descriptor_is_left_open(self) -> None:
        """Every opened file is closed, also after a failed opening."""
        before = open_descriptors()
        await self.publish(key_of(1), DATA)
        for _ in range(3):
            await content(await self.store.open(key_of(1)))
            await self.assert_raises(Corrupt, self.store.open(key_of(1), size=1))
            (await self.store.open(key_of(1))).close()
        await self.walked()
        self.assertEqual(open_descriptors(), before)
