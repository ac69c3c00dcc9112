"""The local store after processes that died, and beside running ones."""

from __future__ import annotations

import os
import shutil
from typing import Any, cast

from twisted.internet import reactor as _reactor

from ncps.aio.lockfile import LockFile
from ncps.database import migrate
from ncps.database.catalog import SqlCatalog
from ncps.database.dialects.sqlite import SQLite
from ncps.database.local import LocalDatabase
from ncps.database.lock import DatabaseLock
from ncps.errors import Refused
from ncps.nix.hashes import sha256_of
from ncps.observe.metrics import Metrics
from ncps.ports import Spooled
from ncps.storage import keys
from ncps.storage.lock import StoreLock
from ncps.storage.stores import BlobNarStore
from ncps.storage.temps import TempFile
from tests.contract.body import DATA, content
from tests.contract.samples import key_of, spooled, stored
from tests.integration.local_store import LocalTestCase
from tests.integration.processes import child, die, spawn

reactor = cast("Any", _reactor)


PUBLISH_AND_DIE = """
import os, signal, sys
from pathlib import Path
from ncps.nix.hashes import sha256_of
from ncps.ports import Spooled
from ncps.storage.directory import DirectoryBlobs
from ncps.storage.small_files import SmallFile, write_small
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
    write_small(tree, [SmallFile(key="store/narinfo/a/ab/text", data=b"half")])
os.kill(os.getpid(), signal.SIGKILL)
"""


GROUP_AND_DIE = """
import os, signal, sys
from pathlib import Path
from ncps.nix.hashes import sha256_of
from ncps.storage import keys
from ncps.storage.small_files import SmallFile, write_small
from ncps.storage.tree import Tree
from tests.contract.samples import key_of
left = int(sys.argv[2])
def dying(real):
    def call(*arguments):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)
    return call
os.fsync, os.rename = dying(os.fsync), dying(os.rename)
data = {keys.nar_key(key_of(n)): b"nar %d" % n for n in range(4)}
files = [SmallFile(key=key, data=d, digest=sha256_of(d).digest) for key, d in data.items()]
write_small(Tree(Path(sys.argv[1])), files)
os.kill(os.getpid(), signal.SIGKILL)
"""


RECORD_AND_DIE = """
import os, signal, sys
from pathlib import Path
from twisted.internet import reactor
from ncps.database.catalog import SqlCatalog
from ncps.database.dialects.sqlite import SQLite
from ncps.database.local import LocalDatabase
from ncps.observe.metrics import Metrics
from tests.contract.running import start
from tests.contract.samples import stored
database = LocalDatabase(reactor, SQLite(Path(sys.argv[1])), Metrics())
catalog = SqlCatalog(database)
async def main():
    database.open()
    async def record(number):
        await catalog.mark_stored(stored(number), is_settled=number % 2 == 0)
        print(number, flush=True)
        if number == 30:
            os.kill(os.getpid(), signal.SIGKILL)
    for number in range(1000):
        start(record(number))
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
    """A killed process leaves nothing half done, and a running one keeps its files and locks."""

    def setUp(self) -> None:
        super().setUp()
        self.store = BlobNarStore(self.blobs())

    def catalog(self) -> SqlCatalog:
        dialect = SQLite(self.root / "db.sqlite")
        migrate.up(dialect)
        database = LocalDatabase(reactor, dialect, Metrics())
        database.open()
        self.addCleanup(database.close)
        return SqlCatalog(database)

    async def test_killed_between_bytes_and_row(self) -> None:
        """The bytes are complete without a row; a walk finds them and ncps records them."""
        catalog = self.catalog()
        die(spawn(PUBLISH_AND_DIE, str(self.root), "published"))
        self.assertIsNone(await catalog.nar(key_of(1)))
        found = [stat async for stat in self.store.walk()]
        self.assertEqual([(stat.key, stat.size) for stat in found], [(key_of(1), 10)])
        self.assertEqual(await content(await self.store.open(key_of(1))), b"some bytes")
        await catalog.mark_stored(stored(1))
        self.assertEqual(self.tree.temps.sweep(), 0)

    async def test_killed_while_receiving_or_copying(self) -> None:
        """Unfinished files do not have the name of an object, and the next start removes them."""
        for when, left in (("received", 1), ("copied", 2)):
            die(spawn(PUBLISH_AND_DIE, str(self.root), when))
            self.assertEqual([stat async for stat in self.store.walk()], [])
            self.assertEqual(len(self.temps()), left)
            self.assertEqual(self.tree.temps.sweep(), left)
            self.assertEqual(self.temps(), [])

    async def test_killed_while_a_group_is_stored(self) -> None:
        """Each file is complete or missing; the next start removes the others.

        The steps are: four files synced, four renamed, then their directories synced.
        """
        for steps, there in ((0, 0), (3, 0), (5, 1), (7, 3), (9, 4), (1000, 4)):
            die(spawn(GROUP_AND_DIE, str(self.root), str(steps)))
            found = {stat.key async for stat in self.store.walk()}
            self.assertEqual(found, {key_of(number) for number in range(there)})
            for number in range(there):
                whole = await content(await self.store.open(key_of(number)))
                self.assertEqual(whole, b"nar %d" % number)
                await self.store.delete(key_of(number))
            self.assertEqual(self.tree.temps.sweep(), 4 - there)
            self.assertEqual(self.temps(), [])

    async def test_killed_while_recording(self) -> None:
        """Every acknowledged row is there after a kill."""
        self.catalog()
        said = die(spawn(RECORD_AND_DIE, str(self.root / "db.sqlite"))).split()
        self.assertEqual(said, [str(number) for number in range(31)])
        catalog = self.catalog()
        for number in range(31):
            self.assertEqual(await catalog.nar(key_of(number)), stored(number))

    async def test_a_second_daemon_names_the_first(self) -> None:
        """Store and database are refused while another process uses them, and free afterwards."""
        holder = spawn(HOLD, str(self.root))
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
        """A program that the daemon starts has neither the lock nor a spool's file."""
        lock = StoreLock(self.root)
        lock.acquire()
        spool: TempFile = self.tree.temps.create()
        other = child("import sys; sys.stdin.readline()")
        lock.release()
        spool.close()
        StoreLock(self.root).acquire()
        self.assertEqual(self.tree.temps.sweep(), 1)
        other.communicate("\n", timeout=60)


class CutFileTests(LocalTestCase):
    async def test_a_file_cut_behind_our_back_is_found_out(self) -> None:
        """A truncated object cannot be opened with its recorded size; a new one replaces it."""
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
