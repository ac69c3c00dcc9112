"""The local store with real threads, and on full and read-only disks."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, gatherResults

from ncps.errors import NotFound, Refused, StorageFull, Unavailable
from ncps.storage import keys
from ncps.storage.calls import Calls
from ncps.storage.directory import DirectoryBlobs
from ncps.storage.stores import BlobConfigStore, BlobExtraStore, BlobNarInfoStore, BlobNarStore
from tests.contract.body import DATA, content
from tests.contract.config_store import ConfigStoreContract
from tests.contract.extra_store import ExtraStoreContract
from tests.contract.nar_store import NarStoreContract
from tests.contract.narinfo_store import NarInfoStoreContract
from tests.contract.running import start
from tests.contract.samples import digest_of, key_of, spooled
from tests.integration.local_store import LocalTestCase
from tests.integration.processes import together
from tests.services import require

reactor = cast("Any", _reactor)


class LocalNarStoreTests(NarStoreContract, LocalTestCase):
    """The local store in threads; sources may be on another file system."""

    store: BlobNarStore
    reopens = True

    def setUp(self) -> None:
        super().setUp()
        readers = Calls(self.workers, clock=reactor, is_local=True)
        self.store = BlobNarStore(DirectoryBlobs(self.tree, self.workers, readers))

    async def test_stores_and_deletes_in_one_shard_race_safely(self) -> None:
        """A hundred objects that come and go in shared directories do not disturb each other."""

        async def come_and_go(number: int) -> None:
            for _ in range(5):
                await self.publish(key_of(number % 10, "xz"), b"x" * 10)
                await self.store.delete(key_of(number % 10, "xz"))

        await gatherResults([start(come_and_go(n)) for n in range(40)], consumeErrors=True)
        self.assertEqual(await self.walked(), [])
        self.assertEqual(self.temps(), [])

    async def test_a_cancelled_publish_is_done_or_not_done(self) -> None:
        """A cancelled publication leaves a complete object or none, and no other file."""
        publish = start(self.publish(key_of(1), DATA))
        publish.cancel()
        with self.assertRaises(CancelledError):
            await publish
        await self.workers.run(int)
        await self.workers.stop(10)
        self.assertIn(await self.walked_here(), ([], [key_of(1).file_name]))
        self.assertEqual(self.temps(), [])

    async def walked_here(self) -> list[str]:
        """Return the names of the objects, without threads."""
        return [key.rpartition("/")[2] for key, _ in self.tree.walk(keys.NARS)]


class NetworkNarStoreTests(NarStoreContract, LocalTestCase):
    """The local store with every read in a thread."""

    def setUp(self) -> None:
        super().setUp()
        self.store = BlobNarStore(self.blobs())

    async def test_closing_under_a_running_read_is_safe(self) -> None:
        """If a body is closed while a thread reads, its file is closed after that read."""
        await self.publish(key_of(1), DATA)
        for _ in range(50):
            body = await self.store.open(key_of(1))
            read = start(content(body))
            body.close()
            read.cancel()
            with contextlib.suppress(CancelledError):
                await read
            self.assertEqual(await content(await self.store.open(key_of(1))), DATA)


class LocalExtraStoreTests(ExtraStoreContract, LocalTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.store = BlobExtraStore(self.blobs())


class LocalNarInfoStoreTests(NarInfoStoreContract, LocalTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.store = BlobNarInfoStore(self.blobs())


CREATE = """
import sys
from pathlib import Path
from ncps.storage.directory import DirectoryBlobs
from ncps.storage.stores import BlobConfigStore
from ncps.storage.tree import Tree
from tests.contract.running import start
from tests.fakes.workers import FakeWorkers
store = BlobConfigStore(DirectoryBlobs(Tree(Path(sys.argv[1])), FakeWorkers()))
print("ready", flush=True)
sys.stdin.readline()
print(start(store.create("cache.key", sys.argv[2].encode() * 1000)).result.decode())
"""


class LocalConfigStoreTests(ConfigStoreContract, LocalTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.store = BlobConfigStore(self.blobs())

    async def test_of_several_processes_one_wins(self) -> None:
        """Daemons that start together on an empty store all have the same key."""
        values = together(CREATE, [str(self.root)], 4)
        there = await self.store.get("cache.key")
        assert there is not None
        self.assertEqual(values, [there.decode() + "\n"] * 4)

    async def test_a_disk_that_is_away_has_no_small_files_either(self) -> None:
        """The key may be in a remaining part of the directory, but NARs cannot be served."""
        await self.store.create("cache.key", b"key")
        (self.root / "store" / "nar").rename(self.root / "aside")
        with self.assertRaisesRegex(Unavailable, "the disk may not be mounted"):
            await self.store.get("cache.key")
        (self.root / "aside").rename(self.root / "store" / "nar")
        self.assertEqual(b"key", await self.store.get("cache.key"))


class DiskTests(LocalTestCase):
    """A disk of one megabyte in memory; needs the right to mount it."""

    def place(self) -> Path:
        place = Path(self.mktemp()).absolute()
        place.mkdir(parents=True)
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True
        )
        require(mounted.returncode == 0, "leave to mount a small disk (root has it)")
        self.addCleanup(subprocess.run, ["umount", "--lazy", str(place)], check=True)
        return place / "root"

    def setUp(self) -> None:
        super().setUp()
        self.nars = BlobNarStore(self.blobs())
        self.narinfos = BlobNarInfoStore(self.blobs())
        self.config = BlobConfigStore(self.blobs())

    def fill(self) -> Path:
        """Use all free space by a file that is returned."""
        filling = self.root / "filling"
        with contextlib.suppress(OSError):
            filling.write_bytes(b"x" * 2 * 1024 * 1024)
        return filling

    def remount(self, mode: str) -> None:
        """Make the disk read-only ("ro") or not ("rw")."""
        subprocess.run(["mount", "-o", f"remount,{mode}", str(self.root.parent)], check=True)

    async def test_a_full_disk_keeps_what_was_there(self) -> None:
        """Without space nothing is published and old objects stay; new space helps at once."""
        await self.nars.publish(key_of(1), spooled(self.sources, b"old bytes"))
        await self.narinfos.put(digest_of(1), b"old text")
        filling = self.fill()
        big = spooled(self.sources, DATA)
        with self.assertRaises(StorageFull):
            await self.nars.publish(key_of(2), big)
        with self.assertRaises(StorageFull):
            await self.narinfos.put(digest_of(1), b"new text" * 10_000)
        with self.assertRaises(StorageFull):
            await self.config.create("cache.key", b"secret" * 10_000)
        with self.assertRaises(StorageFull):
            self.tree.probe()
        self.assertEqual(shutil.disk_usage(self.root).free, 0)
        self.assertEqual(self.temps(), [])
        self.assertEqual(await content(await self.nars.open(key_of(1))), b"old bytes")
        self.assertEqual(await self.narinfos.get(digest_of(1)), b"old text")
        with self.assertRaises(NotFound):
            await self.nars.open(key_of(2))
        filling.unlink()
        await self.nars.publish(key_of(2), big)
        self.assertEqual(await content(await self.nars.open(key_of(2))), DATA)
        self.assertFalse(big.path.exists())

    async def test_a_full_disk_loses_what_was_set_aside_first(self) -> None:
        """Setting aside and deleting need no space, and free some."""
        data = DATA[:200_000]
        for number in (1, 2):
            await self.nars.publish(key_of(number), spooled(self.sources, data))
        filling = self.fill()
        for number in (1, 2):
            self.assertTrue(await self.nars.quarantine(key_of(number)))
        (first, second) = [aside async for aside in self.nars.walk_quarantine()]
        before = shutil.disk_usage(self.root).free
        await self.nars.discard(first)
        self.assertGreaterEqual(shutil.disk_usage(self.root).free - before, len(data))
        self.assertEqual([second], [aside async for aside in self.nars.walk_quarantine()])
        filling.unlink()

    async def test_a_read_only_disk_serves(self) -> None:
        """If nothing can be written or removed, the error says so, and reads continue."""
        await self.nars.publish(key_of(1), spooled(self.sources, b"old bytes"))
        self.remount("ro")
        self.addCleanup(self.remount, "rw")
        source = spooled(self.sources, DATA)
        for attempt in (
            self.nars.publish(key_of(2), source),
            self.nars.delete(key_of(1)),
            self.nars.quarantine(key_of(1)),
            self.narinfos.put(digest_of(1), b"text"),
            self.config.create("cache.key", b"secret"),
        ):
            with self.assertRaises(StorageFull):
                await attempt
        with self.assertRaises(StorageFull):
            self.tree.temps.create()
        with self.assertRaises(Refused):
            self.tree.probe()
        self.assertTrue(source.path.exists())
        self.assertEqual(await content(await self.nars.open(key_of(1))), b"old bytes")
        self.assertEqual([stat.key async for stat in self.nars.walk()], [key_of(1)])

    async def test_another_file_system_is_copied_from(self) -> None:
        """A spool elsewhere is copied into the store and removed."""
        source = spooled(self.sources, DATA)
        await self.nars.publish(key_of(1), source)
        self.assertFalse(source.path.exists())
        self.assertEqual(await content(await self.nars.open(key_of(1))), DATA)
