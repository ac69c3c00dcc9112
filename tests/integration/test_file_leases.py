"""Leases in files, between processes that are killed."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from unittest.mock import patch

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from ncps.aio.backoff import Backoff
from ncps.errors import Refused, Unavailable
from ncps.locks.files import FileBackend
from ncps.locks.shared import SharedLeases
from ncps.observe.metrics import Metrics
from tests.contract.leases import SharedLeasesContract
from tests.contract.running import start
from tests.integration.processes import Script, finish, spawn, together

HOLD = """
import sys
from pathlib import Path
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from ncps.locks.files import FileBackend

async def main():
    backend = FileBackend(Path(sys.argv[1]), address="http://victim")
    await backend.start()
    grant = await backend.take("a")
    print(grant.fence, flush=True)
    sys.stdin.readline()
    await grant.give_back()

react(lambda _: Deferred.fromCoroutine(main()))
"""
COUNT = """
import sys
from pathlib import Path
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from ncps.aio.backoff import Backoff
from ncps.locks.files import FileBackend
from ncps.locks.shared import SharedLeases
from ncps.observe.metrics import Metrics

async def main():
    directory = Path(sys.argv[1])
    polls = Backoff(first_s=0.001, longest_s=0.004)
    backend = FileBackend(directory)
    leases = SharedLeases(reactor, backend, polls=polls, metrics=Metrics(), mode="files")
    await leases.start()
    print("ready", flush=True)
    sys.stdin.readline()
    counter = directory.parent / "counter"
    for _ in range(50):
        async with leases.hold("counter") as lease:
            lines = counter.read_text().splitlines() if counter.exists() else ["0 0"]
            count, fence = map(int, lines[-1].split())
            assert lease.fence > fence, (lease.fence, fence)
            counter.write_text("\\n".join([*lines, f"{count + 1} {lease.fence}"]))
    await leases.stop(1)

react(lambda _: Deferred.fromCoroutine(main()))
"""


class FileLeasesTests(SharedLeasesContract, TestCase):
    timeout = 60

    async def setUp(self) -> None:  # type: ignore[override]
        super().setUp()
        self.directory = self.new_directory()
        here = FileBackend(self.directory, address=self.address)
        there = FileBackend(self.directory, address=self.other_address)
        polls = Backoff(first_s=0.02, longest_s=0.2)
        self.leases, self.other = (
            SharedLeases(reactor, backend, polls=polls, metrics=Metrics(), mode="files")
            for backend in (here, there)
        )
        for leases in (self.leases, self.other):
            await leases.start()
            self.addCleanup(leases.stop, 5)

    def new_directory(self) -> Path:
        return Path(self.mktemp()).absolute() / "leases"

    def tearDown(self) -> None:
        """Check that only the number is left, and no file is open."""
        self.assertEqual([path.name for path in self.directory.glob("*.lease")], [])
        self.assertEqual(
            [
                target
                for path in Path("/proc/self/fd").iterdir()
                if os.path.lexists(path) and str(self.directory) in (target := str(path.readlink()))
            ],
            [],
        )

    def victim(self) -> tuple[Script, int]:
        """Start a process that holds the lease; return its fence."""
        process = spawn(HOLD, str(self.directory))
        return process, int(process.stdout.readline())

    async def test_a_killed_process_frees_its_lease(self) -> None:
        """The lease is free immediately, and the process is not the holder any more."""
        process, fence = self.victim()
        self.assertEqual(await self.leases.holder("a"), "http://victim")
        self.assertIsNone(await self.leases.try_hold("a"))
        process.kill()
        process.communicate()
        self.assertEqual(await self.leases.holder("a"), "")
        lease = await self.leases.try_hold("a")
        assert lease is not None
        self.assertGreater(lease.fence, fence)
        self.assertEqual(await self.leases.holder("a"), self.address)
        await lease.release()

    async def test_waiter_for_a_killed_process_is_next(self) -> None:
        """A process that waits for a killed holder gets the lease."""
        process, _ = self.victim()
        leave, done = self.holder("x")
        await deferLater(reactor, 0)
        self.assertEqual(self.log.lines, [])
        process.kill()
        process.communicate()
        await self.log.seen("x in")
        leave.callback(None)
        await done

    async def test_a_start_sweeps_files_of_ended_processes(self) -> None:
        """Files without a holder are removed; held files and files of others stay."""
        process, _ = self.victim()
        process.kill()
        process.communicate()
        other = self.directory / "README"
        other.write_text("")
        self.assertEqual(len(list(self.directory.glob("*.lease"))), 1)
        lease = await self.leases.try_hold("b")
        assert lease is not None
        await FileBackend(self.directory).start()
        self.assertEqual(len(list(self.directory.glob("*.lease"))), 1)
        self.assertTrue(other.exists())
        self.assertIsNone(await self.other.try_hold("b"))
        await lease.release()

    async def test_numbers_survive_the_directory(self) -> None:
        """Numbers do not start again after the directory was removed or has garbage."""
        first = await self.leases.try_hold("a")
        assert first is not None
        await first.release()
        for text in (None, "", "rubbish"):
            fence = self.directory / "fence"
            fence.unlink()
            if text is not None:
                fence.write_text(text)
            lease = await self.leases.try_hold("a")
            assert lease is not None
            self.assertGreater(lease.fence, first.fence)
            await lease.release()
        fence.write_text(f"{10**19:020}")
        lease = await self.leases.try_hold("a")
        assert lease is not None
        self.assertEqual(lease.fence, 10**19 + 1)
        await lease.release()

    async def test_a_process_that_holds_the_number_is_waited_for(self) -> None:
        """Other processes wait for a process that holds the number and has lost its core."""
        first = await self.leases.try_hold("a")
        assert first is not None
        await first.release()
        with (self.directory / "fence").open("rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            self.assertIsNone(await self.leases.try_hold("a"))
            self.assertEqual([], list(self.directory.glob("*.lease")))
            taking = start(self.leases.take("a"))
            self.assertNoResult(taking)
        lease = await taking
        self.assertGreater(lease.fence, first.fence)
        await lease.release()

    async def test_a_full_disk(self) -> None:
        """A process gets no leases, and holds none afterwards."""
        with patch("os.pwrite", side_effect=OSError(errno.ENOSPC, "No space left on device")):
            await self.assert_raises(Unavailable, self.leases.try_hold("a"))
        lease = await self.leases.try_hold("a")
        assert lease is not None
        await lease.release()

    async def test_a_directory_that_cannot_be(self) -> None:
        """A directory that cannot be made is a start-up error with its name."""
        path = self.directory / "fence"
        path.touch()
        error = await self.assert_raises(Refused, FileBackend(path).start())
        self.assertIn(str(path), str(error))

    def test_many_processes_count_without_loss(self) -> None:
        """Four processes change one file two hundred times, one after the other, with numbers."""
        together(COUNT, [str(self.directory)], 4)
        lines = (self.directory.parent / "counter").read_text().splitlines()
        self.assertEqual([int(line.split()[0]) for line in lines], list(range(201)))

    def test_a_process_that_ends_well_removes_its_file(self) -> None:
        """This process sees a release in another process."""
        process, _ = self.victim()
        finish(process, "\n")
        self.assertEqual(list(self.directory.glob("*.lease")), [])
