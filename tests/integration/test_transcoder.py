"""The transcoder that starts processes: its contract, and the ends of its processes."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from ncps.aio.threads import Workers
from ncps.aio.waiting import sleep
from ncps.errors import Corrupt, StorageFull, Unavailable
from ncps.process import transcoder as module
from ncps.process.transcoder import ChildTranscoder
from ncps.storage.temps import TempFile, Temps
from tests.contract.transcoder import Pieces, TranscoderContract

reactor = cast("Any", _reactor)


class Stuck(Pieces):
    """A source that sends its chunks, fires `went`, and waits for `rest`."""

    def __init__(self, *chunks: bytes) -> None:
        super().__init__(*chunks)
        self.went: Deferred[None] = Deferred()
        self.rest: Deferred[None] = Deferred()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            yield chunk
        self.went.callback(None)
        await self.rest


class ChildTranscoderTests(TranscoderContract, TestCase):
    """Processes."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.workers = Workers(reactor, "disk", 2)
        self.workers.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.workers.stop(10.0)))
        self.children: list[int] = []
        self.transcoder = self.make()

    def make(self, clock: Any = None, create: Any = None) -> ChildTranscoder:
        temps = Temps(self.directory)

        class Spawning:
            """A reactor that records the processes that it starts, and may have another clock."""

            def __getattr__(its, name: str) -> Any:  # noqa: N805 - `self` is the test
                if clock is not None and name in {"callLater", "seconds"}:
                    return getattr(clock, name)
                return getattr(reactor, name)

            def spawnProcess(its, *args: Any, **rest: Any) -> Any:  # noqa: N805
                process = reactor.spawnProcess(*args, **rest)
                self.children.append(process.pid)
                return process

        return ChildTranscoder(Spawning(), self.workers, create or temps.create)

    def leftovers(self) -> list[str]:
        return [path.name for path in self.directory.iterdir()]

    async def removed(self) -> None:
        """Wait until no unfinished file is left."""
        while self.leftovers():
            await sleep(reactor, 0.02)

    async def ended(self) -> None:
        """Wait until the process has ended and was waited for."""
        while _is_there(self.children[-1]):
            await sleep(reactor, 0.02)

    async def test_damage_is_corrupt(self) -> None:
        self.leftovers = list  # type: ignore[method-assign]
        await super().test_damage_is_corrupt()
        del self.leftovers
        await self.removed()

    async def test_error_of_the_source(self) -> None:
        self.leftovers = list  # type: ignore[method-assign]
        await super().test_error_of_the_source()
        del self.leftovers
        await self.removed()
        await self.ended()

    async def test_lowest_priority(self) -> None:
        """The process has the lowest priority, a memory limit, and no secret of the daemon."""
        sample = self.sample()
        self.patch(os, "environ", {**os.environ, "NCPS_TEST_SECRET": "hidden"})
        source = Stuck(sample.file[:100])
        work = Deferred.fromCoroutine(self.transcoder.transcode(source, self.order(sample)))
        await source.went
        process = Path(f"/proc/{self.children[-1]}")
        while os.getpriority(os.PRIO_PROCESS, self.children[-1]) != 19:
            await sleep(reactor, 0.02)
        while os.sched_getscheduler(self.children[-1]) != os.SCHED_IDLE:
            await sleep(reactor, 0.02)
        while "unlimited" in _limit(process, "Max address space"):
            await sleep(reactor, 0.02)
        self.assertNotIn(b"hidden", (process / "environ").read_bytes())
        work.cancel()
        await self.assertFailure(work, CancelledError)
        await self.ended()
        await self.removed()

    async def test_process_is_killed(self) -> None:
        """SIGKILL counts as a fault of the NAR; SIGTERM does not."""
        sample = self.sample()
        for number, kind in ((signal.SIGKILL, Corrupt), (signal.SIGTERM, Unavailable)):
            source = Stuck(sample.file[:100])
            work = Deferred.fromCoroutine(self.transcoder.transcode(source, self.order(sample)))
            await source.went
            os.kill(self.children[-1], number)
            await self.ended()
            source.rest.callback(None)
            await self.assertFailure(work, kind)
            await self.removed()

    async def test_too_late(self) -> None:
        """A process that takes too long is killed."""
        sample, clock = self.sample(), Clock()
        source = Stuck(sample.file[:100])
        transcoder = self.make(clock)
        work = Deferred.fromCoroutine(transcoder.transcode(source, self.order(sample)))
        await source.went
        clock.advance(module.SPARE_S + len(sample.nar) / module.SLOWEST + 1)
        failure: Any = await self.assertFailure(work, Unavailable)
        self.assertTrue(failure.timed_out)
        await self.ended()
        await self.removed()

    async def test_no_room(self) -> None:
        """A file that cannot be created or written is not a fault of the NAR."""
        sample = self.sample()

        def refuse() -> TempFile:
            raise StorageFull("no room")

        def full() -> TempFile:
            path = self.directory / "full"
            path.touch()
            return TempFile(os.open("/dev/full", os.O_RDWR), str(path))

        for create in (refuse, full):
            transcoder = self.make(create=create)
            await self.assert_raises(
                StorageFull, transcoder.transcode(self.body(sample.file), self.order(sample))
            )
        await self.removed()


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _limit(process: Path, name: str) -> str:
    lines = (process / "limits").read_text("ascii").splitlines()
    return next(line for line in lines if line.startswith(name))
