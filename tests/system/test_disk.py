"""Disks that fail: files cannot be read, written or synced.

Clients get every byte as long as an upstream has them, nothing damaged is served or stays, and all
is well by itself once the disk is.
"""

from __future__ import annotations

import errno
import re
import subprocess
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from shutil import which
from threading import Event

from tests.e2e.daemon import Daemon
from tests.machines.faulty import Failing, MachineFaults, Slow
from tests.services import require
from tests.system.caches import StorePath
from tests.system.origin import Origin
from tests.system.stage import Stage
from tests.system.wire import Answer
from tests.waiting import wait_until

MIB = 1024 * 1024
SIZE = 3_000_000
MIDDLE = 1_500_000
SLOW_S = 3.0
READS = ("pread", "preadv")


class FaultyDiskStage(Stage):
    """A daemon whose file calls have faults."""

    def faulty_daemon(
        self, *upstreams: Origin, options: Sequence[str] = ()
    ) -> tuple[Daemon, MachineFaults]:
        faults = MachineFaults(self.directory / "faults.json")
        daemon = self.make_daemon(*upstreams, options=options)
        daemon.program = faults.program
        daemon.start()
        return daemon, faults

    def nars_of(self, daemon: Daemon) -> str:
        return str(daemon.storage / "store" / "nar")

    def fill(self, daemon: Daemon, *paths: StorePath) -> None:
        for path in paths:
            self.assert_served(daemon, path)
        self.wait_until_stored(daemon, *paths)

    def set_aside(self, daemon: Daemon) -> list[Path]:
        return list((daemon.storage / "store" / "quarantine").iterdir())


class UnreadableTests(FaultyDiskStage):
    """EIO on stored files."""

    def test_stored_nar_that_cannot_be_read_is_fetched_again(self) -> None:
        """Before the first byte it is a miss: the file is set aside, the next request is a hit."""
        path = self.cache.add(SIZE)
        origin = self.mounted()
        daemon, faults = self.faulty_daemon(origin)
        self.fill(daemon, path)
        faults.set(Failing(READS, self.nars_of(daemon)))
        self.assertEqual("miss", self.assert_served(daemon, path).outcome)
        self.assertEqual(2, origin.gets(path.nar_target))
        self.wait_for_log(daemon, "is damaged", "Input/output error")
        self.assertEqual(1, len(self.set_aside(daemon)))
        faults.set()
        self.wait_until_stored(daemon, path)
        self.assertEqual("hit", self.assert_served(daemon, path).outcome)
        self.assertEqual(2, origin.gets(path.nar_target))

    def test_stored_nar_with_a_bad_spot_in_its_middle(self) -> None:
        """The connection is cut at the lost bytes; a client that asks again gets the rest."""
        path = self.cache.add(SIZE)
        daemon, faults = self.faulty_daemon(self.mounted())
        self.fill(daemon, path)
        target = self.nar_target(daemon, path)
        faults.set(Failing(READS, self.nars_of(daemon), at=MIDDLE))
        cut = self.ask(daemon, target)
        self.assertEqual((200, False), (cut.status, cut.whole))
        self.assertEqual(path.file[: len(cut.body)], cut.body)
        wait_until(lambda: self.set_aside(daemon), "the file to be set aside", daemon=daemon)
        rest = self.ask(daemon, target, Range=f"bytes={len(cut.body)}-")
        self.assertEqual((206, True), (rest.status, rest.whole))
        self.assertEqual(path.file, cut.body + rest.body)

    def test_unreadable_nar_on_a_disk_that_turned_read_only(self) -> None:
        """If a bad NAR cannot be set aside, ncps fetches it past the store, each time."""
        path, other = self.cache.add(SIZE), self.cache.add(SIZE)
        origin = self.mounted()
        daemon, faults = self.faulty_daemon(origin)
        self.fill(daemon, path, other)
        (bad,) = (file for file in daemon.stored_nars() if file.read_bytes() == path.file)
        written = ("pwrite", "write", "fsync", "rename", "link", "unlink", "mkdir")
        faults.set(
            Failing(READS, str(bad)),
            Failing(written, str(daemon.storage), errno.EROFS),
        )
        for _ in range(2):
            self.assert_served(daemon, path)
        self.wait_for_log(daemon, "cannot be set aside", "Read-only")
        self.wait_for_log(daemon, "passed through but is not kept", "Read-only")
        self.assertEqual("hit", self.assert_served(daemon, other).outcome)
        faults.set()
        self.assert_served(daemon, path)
        self.wait_until_stored(daemon, path)

    def test_unreadable_nar_that_no_upstream_has_any_more(self) -> None:
        """Without an upstream it is an error, never a short answer or a 404."""
        path = self.cache.add(SIZE)
        origin = self.mounted()
        daemon, faults = self.faulty_daemon(origin)
        self.fill(daemon, path)
        target = self.nar_target(daemon, path)
        origin.stop()
        faults.set(Failing(READS, self.nars_of(daemon)))
        self.assertEqual(503, self.ask(daemon, target).status)
        self.assertEqual(503, self.ask(daemon, target).status)
        faults.set()
        origin.start()
        wait_until(
            lambda: self.ask(daemon, target).body == path.file, "the upstream's", daemon=daemon
        )


class SlowTests(FaultyDiskStage):
    """A slow disk, or a network file system with a fault."""

    def test_only_requests_for_a_slow_disk_wait(self) -> None:
        """A stored or new file that takes seconds delays only its own clients."""
        slow, other, new, third = (self.cache.add(SIZE) for _ in range(4))
        daemon, faults = self.faulty_daemon(self.mounted())
        self.fill(daemon, slow, other)
        (file,) = (file for file in daemon.stored_nars() if file.read_bytes() == slow.file)
        for path, below in ((slow, str(file)), (new, str(daemon.directory / "tmp"))):
            faults.set(Slow(("open",), below, SLOW_S))
            for answer in self.at_once(
                *[partial(self.nar, daemon, path)] * 4,
                partial(self.quick, daemon, other),
            ):
                self.assertEqual((200, True), (answer.status, answer.whole))
            faults.set()
        self.wait_for_log(daemon, "is slow: one call took")  # maybe slow earlier
        (worst,) = re.findall(rb"took ([0-9.]+) s for one call", self.ask(daemon, "/readyz").body)
        self.assertGreaterEqual(float(worst), SLOW_S)
        self.wait_until_stored(daemon, new)
        self.fill(daemon, third)

    def quick(self, daemon: Daemon, other: StorePath) -> Answer:
        """Ask for objects that need no disk, while others wait for it."""
        time.sleep(0.3)
        began = time.monotonic()
        for target in ("/healthz", "/readyz", f"/{other.digest}.narinfo"):
            self.assertEqual(200, self.ask(daemon, target).status)
        answer = self.nar(daemon, other)
        self.assertLess(time.monotonic() - began, SLOW_S - 1.0)
        return answer


class UnwritableTests(FaultyDiskStage):
    """EIO on files that are being stored."""

    def assert_goes_past(self, call: str, at: int = 0, *, where: str = "") -> None:
        """Check that clients get a NAR though a call fails, and that it is stored afterwards."""
        path = self.cache.add(SIZE)
        daemon, faults = self.faulty_daemon(self.mounted())
        faults.set(Failing((call,), str(daemon.directory / where), at=at))
        for answer in self.at_once(*[lambda: self.nar(daemon, path)] * 3):
            self.assertEqual((200, True, path.file), (answer.status, answer.whole, answer.body))
        self.wait_for_log(daemon, "passed through but is not kept", "Input/output error")
        self.assertEqual(200, self.ask(daemon, "/healthz").status)
        faults.set()
        self.assert_served(daemon, path)
        self.wait_until_stored(daemon, path)
        (file,) = daemon.stored_nars()
        self.assertEqual(path.file, file.read_bytes())
        daemon.stop()

    def test_download_that_cannot_be_written(self) -> None:
        """The call fails at the first byte, or in the middle."""
        self.assert_goes_past("pwrite", where="tmp")
        self.assert_goes_past("pwrite", MIDDLE, where="tmp")

    def test_download_that_cannot_be_begun(self) -> None:
        """The file cannot be made."""
        self.assert_goes_past("open", where="tmp")

    def test_download_that_cannot_be_synced(self) -> None:
        """Bytes that may not be on the disk are not published."""
        self.assert_goes_past("fsync", where="tmp")

    def test_download_that_cannot_be_published(self) -> None:
        """The rename fails, or the directory cannot be made."""
        self.assert_goes_past("rename", where="tmp")
        self.assert_goes_past("mkdir", where="storage")


class ReadOnlyTests(Stage):
    """The kernel makes a file system read-only, as after an error in it."""

    def test_store_that_turns_read_only_under_load(self) -> None:
        """Hits and misses are served, and after a repair all stored files are right."""
        self.assert_outlived()

    def test_store_and_database_that_turn_read_only_under_load(self) -> None:
        """The same if both are on one file system, as is usual."""
        self.assert_outlived("catalog.sqlite")

    def assert_outlived(self, database: str = "") -> None:
        """Check a daemon before, while and after the store is read-only.

        :param database: its name in the store's directory, if it is there.
        """
        old = [self.cache.add(200_000) for _ in range(4)]
        new = [self.cache.add(200_000) for _ in range(24)]
        late = [self.cache.add(200_000) for _ in range(4)]
        daemon = self.make_daemon(self.mounted(), options=("--cache-storage-min-free", "0"))
        if database:
            url = f"sqlite:{daemon.storage / database}"
            daemon.options = (*daemon.options, "--cache-database-url", url)
        image = self.directory / "image"
        self.mount(image, daemon.storage)
        daemon.start()
        for path in old:
            self.assert_served(daemon, path)
        self.wait_until_stored(daemon, *old)
        is_over = Event()

        def load(paths: Sequence[StorePath]) -> int:
            rounds = 0
            while not is_over.is_set():
                for path in paths:
                    self.assert_served(daemon, path)
                rounds += 1
            return rounds

        parts = [[*old, *new[n::4]] for n in range(4)]
        clients = [self.in_background(partial(load, part)) for part in parts]
        self.addCleanup(is_over.set)
        wait_until(lambda: len(daemon.stored_nars()) > len(old), "something new", daemon=daemon)
        self.break_down(daemon.storage)
        kept = set(daemon.stored_nars())
        for path in late:
            self.assert_served(daemon, path)
        self.wait_for_log(daemon, "passed through but is not kept", "Read-only")
        self.assertEqual(200, self.ask(daemon, "/readyz").status)
        is_over.set()
        self.assertTrue(all(client.result() for client in clients))
        self.assertEqual(kept, set(daemon.stored_nars()))
        daemon.stop()
        self.run_tool("umount", str(daemon.storage))
        # The device is removed a moment later; until then, a mount would find the broken one.
        wait_until(lambda: not self.run_tool("losetup", "-j", str(image)), "the device to go")
        subprocess.run(["fsck.ext4", "-fy", str(image)], capture_output=True, check=False)
        self.run_tool("mount", "-o", "loop", str(image), str(daemon.storage))
        daemon.start()
        for path in [*old, *new, *late]:
            self.assert_served(daemon, path)
        self.wait_until_stored(daemon, *old, *new, *late)
        files = {path.file for path in [*old, *new, *late]}
        self.assertEqual(files, {file.read_bytes() for file in daemon.stored_nars()})
        daemon.stop()

    def mount(self, image: Path, directory: Path) -> None:
        """Mount an ext4 there until the test ends."""
        require(which("mkfs.ext4") and Path("/dev/loop-control").exists(), "ext4 and loop devices")
        with image.open("wb") as file:
            file.truncate(64 * MIB)
        self.run_tool("mkfs.ext4", "-q", str(image))
        command = ["mount", "-o", "loop,errors=remount-ro", str(image), str(directory)]
        done = subprocess.run(command, capture_output=True, check=False)
        require(done.returncode == 0, "permission to mount")
        self.addCleanup(subprocess.run, ["umount", "-l", str(directory)], check=False)

    def break_down(self, directory: Path) -> None:
        """Make the kernel find an error in the file system."""
        device = Path(self.run_tool("findmnt", "-no", "SOURCE", str(directory)).strip()).name
        Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("1")

    def run_tool(self, *command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(0, done.returncode, done.stderr)
        return done.stdout
