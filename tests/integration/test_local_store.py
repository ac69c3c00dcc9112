"""The local store with real threads, full and read-only disks, and processes that die."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, gatherResults
from twisted.trial.unittest import TestCase

from ncps.aio.lockfile import LockFile
from ncps.aio.threads import Workers
from ncps.database import migrate
from ncps.database.catalog import SqlCatalog
from ncps.database.dialects.sqlite import SQLite
from ncps.database.local import LocalDatabase
from ncps.database.lock import DatabaseLock
from ncps.errors import NotFound, Refused, StorageFull, Unavailable
from ncps.nix.hashes import sha256_of
from ncps.ports import Spooled
from ncps.storage import keys
from ncps.storage.calls import Calls
from ncps.storage.directory import DirectoryBlobs
from ncps.storage.lock import StoreLock
from ncps.storage.stores import BlobConfigStore, BlobNarInfoStore, BlobNarStore
from ncps.storage.temps import TempFile
from ncps.storage.tree import Tree
from tests.contract.body import DATA, content
from tests.contract.config_store import ConfigStoreContract
from tests.contract.nar_store import NarStoreContract
from tests.contract.narinfo_store import NarInfoStoreContract
from tests.contract.running import start
from tests.contract.samples import digest_of, key_of, spooled, stored
from tests.integration.processes import die, finish, spawn, together
from tests.services import require

reactor = cast("Any", _reactor)


class LocalTestCase(TestCase):
    def setUp(self) -> None:
        self.root = self.place()
        self.tree = Tree(self.root)
        self.tree.probe()
        self.workers = Workers(reactor, "test", 4)
        self.workers.start()
        self.addCleanup(lambda: start(self.workers.stop(10)))
        self.sources = Path(self.mktemp()).absolute()
        self.sources.mkdir(parents=True)

    def place(self) -> Path:
        """Where the store shall be."""
        return Path(self.mktemp()).absolute()

    def blobs(self) -> DirectoryBlobs:
        return DirectoryBlobs(self.tree, self.workers)

    def temps(self) -> list[Path]:
        return list((self.root / keys.TEMPS).iterdir())


class LocalNarStoreTests(NarStoreContract, LocalTestCase):
    """The contract with threads; sources may be on another file system."""

    store: BlobNarStore

    def setUp(self) -> None:
        super().setUp()
        readers = Calls(self.workers, clock=reactor, is_local=True)
        self.store = BlobNarStore(DirectoryBlobs(self.tree, self.workers, readers))

    async def test_stores_and_deletes_in_one_shard_race_well(self) -> None:
        """A hundred objects that come and go in shared directories never trip over each other."""

        async def come_and_go(number: int) -> None:
            for _ in range(5):
                await self.publish(key_of(number % 10, "xz"), b"x" * 10)
                await self.store.delete(key_of(number % 10, "xz"))

        await gatherResults([start(come_and_go(n)) for n in range(40)], consumeErrors=True)
        self.assertEqual(await self.walked(), [])
        self.assertEqual(self.temps(), [])

    async def test_a_cancelled_publish_is_done_or_not_done(self) -> None:
        """Whoever stops waiting leaves a whole object behind or none, and no temporary file."""
        publish = start(self.publish(key_of(1), DATA))
        publish.cancel()
        with self.assertRaises(CancelledError):
            await publish
        await self.workers.run(int)
        await self.workers.stop(10)
        self.assertIn(await self.walked_here(), ([], [key_of(1).file_name]))
        self.assertEqual(self.temps(), [])

    async def walked_here(self) -> list[str]:
        """Names of the objects, without threads."""
        return [key.rpartition("/")[2] for key, _ in self.tree.walk(keys.NARS)]


class NetworkNarStoreTests(NarStoreContract, LocalTestCase):
    """The contract with every read in a thread."""

    def setUp(self) -> None:
        super().setUp()
        self.store = BlobNarStore(self.blobs())

    async def test_closing_under_a_running_read_is_safe(self) -> None:
        """A body closed while a thread reads from it closes its file after that read."""
        await self.publish(key_of(1), DATA)
        for _ in range(50):
            body = await self.store.open(key_of(1))
            read = start(content(body))
            body.close()
            read.cancel()
            with contextlib.suppress(CancelledError):
                await read
            self.assertEqual(await content(await self.store.open(key_of(1))), DATA)


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
        """The key may still lie in what is left of the directory: NARs cannot be served."""
        await self.store.create("cache.key", b"key")
        (self.root / "store" / "nar").rename(self.root / "aside")
        with self.assertRaisesRegex(Unavailable, "the disk may not be mounted"):
            await self.store.get("cache.key")
        (self.root / "aside").rename(self.root / "store" / "nar")
        self.assertEqual(b"key", await self.store.get("cache.key"))


class DiskTests(LocalTestCase):
    """A disk of one megabyte, in memory; needs leave to mount one."""

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
        """Take all the room that is left, by a file that is returned."""
        filling = self.root / "filling"
        with contextlib.suppress(OSError):
            filling.write_bytes(b"x" * 2 * 1024 * 1024)
        return filling

    def remount(self, mode: str) -> None:
        """Make the disk read-only ("ro") or not ("rw")."""
        subprocess.run(["mount", "-o", f"remount,{mode}", str(self.root.parent)], check=True)

    async def test_a_full_disk_keeps_what_was_there(self) -> None:
        """Without room nothing is published, old objects stay whole, and room helps at once."""
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
        """To set aside and to discard needs no room, and makes some."""
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
        """Where nothing can be written or removed, that is said, and reading goes on."""
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


PUBLISH_AND_DIE = """
import os, signal, sys
from pathlib import Path
from ncps.nix.hashes import sha256_of
from ncps.ports import Spooled
from ncps.storage.directory import DirectoryBlobs
from ncps.storage.stores import BlobNarStore
from ncps.storage.tree import Tree
from tests.contract.running import start
from tests.contract.samples import key_of
from tests.fakes.workers import FakeWorkers
tree = Tree(Path(sys.argv[1]))
store = BlobNarStore(DirectoryBlobs(tree, FakeWorkers()))
spool = tree.temps.create()
spool.write(b"some bytes")
source = Spooled(path=spool.path, size=10, sha256=sha256_of(b"some bytes"))
if sys.argv[2] == "published":
    start(store.publish(key_of(1), source))
if sys.argv[2] == "copied":
    real = os.fsync
    def fsync(fd):
        os.kill(os.getpid(), signal.SIGKILL)
    os.fsync = fsync
    tree.write("store/narinfo/a/ab/text", b"half")
os.kill(os.getpid(), signal.SIGKILL)
"""

RECORD_AND_DIE = """
import os, signal, sys
from pathlib import Path
from twisted.internet import reactor
from ncps.database.catalog import SqlCatalog
from ncps.database.dialects.sqlite import SQLite
from ncps.database.local import LocalDatabase
from tests.contract.running import start
from tests.contract.samples import stored
database = LocalDatabase(reactor, SQLite(Path(sys.argv[1])))
catalog = SqlCatalog(database)
async def main():
    database.open()
    for number in range(1000):
        await catalog.mark_stored(stored(number))
        print(number, flush=True)
        if number == 30:
            os.kill(os.getpid(), signal.SIGKILL)
reactor.callWhenRunning(lambda: start(main()))
reactor.run()
"""

HOLD = """
import sys
from pathlib import Path
from ncps.database.lock import DatabaseLock
from ncps.storage.lock import StoreLock
from ncps.storage.temps import Temps
for lock in (StoreLock(Path(sys.argv[1])), DatabaseLock(Path(sys.argv[1]) / "db.sqlite")):
    lock.acquire()
temp = Temps(Path(sys.argv[1]) / "store" / "tmp").create()
print("ready", flush=True)
sys.stdin.readline()
"""


class DeathTests(LocalTestCase):
    """What a killed process leaves, and what a living one keeps."""

    def setUp(self) -> None:
        super().setUp()
        self.store = BlobNarStore(self.blobs())

    def catalog(self) -> SqlCatalog:
        dialect = SQLite(self.root / "db.sqlite")
        migrate.up(dialect)
        database = LocalDatabase(reactor, dialect)
        database.open()
        self.addCleanup(database.close)
        return SqlCatalog(database)

    async def test_killed_between_bytes_and_row(self) -> None:
        """The bytes are there, whole, without a row, found by a walk and taken over."""
        catalog = self.catalog()
        die(spawn(PUBLISH_AND_DIE, str(self.root), "published"))
        self.assertIsNone(await catalog.nar(key_of(1)))
        found = [stat async for stat in self.store.walk()]
        self.assertEqual([(stat.key, stat.size) for stat in found], [(key_of(1), 10)])
        self.assertEqual(await content(await self.store.open(key_of(1))), b"some bytes")
        await catalog.mark_stored(stored(1))
        self.assertEqual(self.tree.temps.sweep(), 0)

    async def test_killed_while_receiving_or_copying(self) -> None:
        """Unfinished files have no object's name and are swept by the next start."""
        for when, left in (("received", 1), ("copied", 2)):
            die(spawn(PUBLISH_AND_DIE, str(self.root), when))
            self.assertEqual([stat async for stat in self.store.walk()], [])
            self.assertEqual(len(self.temps()), left)
            self.assertEqual(self.tree.temps.sweep(), left)
            self.assertEqual(self.temps(), [])

    async def test_killed_while_recording(self) -> None:
        """Every row that was acknowledged is there after a kill."""
        self.catalog()
        said = die(spawn(RECORD_AND_DIE, str(self.root / "db.sqlite"))).split()
        self.assertEqual(said, [str(number) for number in range(31)])
        catalog = self.catalog()
        for number in range(31):
            self.assertEqual(await catalog.nar(key_of(number)), stored(number))

    async def test_a_second_daemon_is_told_who_is_first(self) -> None:
        """Store and database are refused while another process has them, and free after it."""
        holder = spawn(HOLD, str(self.root))
        assert holder.stdout is not None
        self.assertEqual(holder.stdout.readline(), "ready\n")
        locks: list[LockFile] = [StoreLock(self.root), DatabaseLock(self.root / "db.sqlite")]
        for lock in locks:
            with self.assertRaises(Refused) as caught:
                lock.acquire()
            self.assertIn(f"process {holder.pid} on ", str(caught.exception))
        self.assertEqual(self.tree.temps.sweep(), 0)
        self.assertEqual(len(self.temps()), 1)
        holder.kill()
        holder.communicate()
        for lock in locks:
            lock.acquire()
            lock.release()
        self.assertEqual(self.tree.temps.sweep(), 1)

    async def test_a_child_does_not_inherit_what_is_held(self) -> None:
        """A program that the daemon starts keeps neither the lock nor a spool's file after it."""
        lock = StoreLock(self.root)
        lock.acquire()
        spool: TempFile = self.tree.temps.create()
        child = spawn("import sys; sys.stdin.readline()")
        lock.release()
        spool.close()
        StoreLock(self.root).acquire()
        self.assertEqual(self.tree.temps.sweep(), 1)
        finish(child, "\n")


class CutFileTests(LocalTestCase):
    async def test_a_file_cut_behind_our_back_is_found_out(self) -> None:
        """A truncated object does not open under its recorded size; a new one replaces it."""
        store = BlobNarStore(self.blobs())
        source = spooled(self.sources, DATA)
        again = source.path.with_name("again")
        shutil.copy(source.path, again)
        await store.publish(key_of(1), source)
        os.truncate(self.root / keys.nar_key(key_of(1)), 1000)
        stat = await store.stat(key_of(1))
        assert stat is not None
        self.assertEqual(stat.size, 1000)
        await store.publish(key_of(1), Spooled(path=again, size=len(DATA), sha256=sha256_of(DATA)))
        self.assertEqual(await content(await store.open(key_of(1), size=len(DATA))), DATA)
