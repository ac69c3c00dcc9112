"""Transcoder: starts a process for each NAR that is to be transcoded."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from ncps.aio.spool_file import SpoolFile
from ncps.aio.threads import Threads, in_background
from ncps.aio.waiting import Future, Wakeup, within
from ncps.errors import Corrupt, Malformed, StorageFull, Unavailable
from ncps.nix.hashes import Hash
from ncps.ports import Body, Order, Transcoded, Transcoder

NICE: Final = 19
"""Niceness of a process that no client waits for: the lowest priority."""
TARGET: Final = 3
"""Descriptor of the new file in the process."""
SPARE_S: Final = 900.0
"""Seconds that a process may wait for a processor, beside the time for the bytes."""
SLOWEST: Final = 250_000
"""Bytes of a NAR that a process must transcode in one second of processor time, at least."""
LONGEST: Final = 64 * 1024
"""Bytes of each output of a process that are read, at most."""

_GENTLE: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that say nothing about the NAR: all processes of a terminal or a service get them."""

_ENVIRONMENT: Final = ("LD_LIBRARY_PATH", "LANG", "LC_ALL", "LOCALE_ARCHIVE")
"""Environment variables for the process; the others may be secrets."""


@implementer(IPushProducer)
class _Child(ProcessProtocol):
    """A process that transcodes.

    :ivar ended: set to the exit code when the process has ended; negative for a signal.
    :ivar output: the bytes of its standard output.
    :ivar errors: the bytes of its standard error.
    """

    transport: Any

    def __init__(self) -> None:
        self.ended: Future[int] = Future()
        self.output = bytearray()
        self.errors = bytearray()
        self._wakeup = Wakeup()
        self._is_paused = False

    def outReceived(self, data: bytes) -> None:
        """See `ProcessProtocol`."""
        self.output += data[: LONGEST - len(self.output)]

    def errReceived(self, data: bytes) -> None:
        """See `ProcessProtocol`."""
        self.errors += data[: LONGEST - len(self.errors)]

    def inConnectionLost(self) -> None:
        """See `ProcessProtocol`: the process reads no more."""
        self.resumeProducing()

    def processEnded(self, reason: Failure) -> None:
        """See `ProcessProtocol`."""
        error: Any = reason.value
        code = error.exitCode
        self.ended.succeed(-(error.signal or 0) if code is None else code)
        self.resumeProducing()

    def pauseProducing(self) -> None:
        """See `IPushProducer`: the pipe is full."""
        self._is_paused = True

    def resumeProducing(self) -> None:
        """See `IPushProducer`."""
        self._is_paused = False
        self._wakeup.wake()

    def stopProducing(self) -> None:
        """See `IPushProducer`."""
        self.resumeProducing()

    async def feed(self, source: Body) -> None:
        """Send the process the bytes of a body at its pace. Raises the errors of the body."""
        self.transport.registerProducer(self, True)
        async for chunk in source:
            if self.ended.is_set or 0 not in self.transport.pipes:
                break
            self.transport.write(chunk)
            while self._is_paused:
                await self._wakeup.wait()
        if 0 in self.transport.pipes:
            self.transport.unregisterProducer()
            self.transport.closeStdin()

    def kill(self) -> None:
        """Kill the process if it still runs."""
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")


class ChildTranscoder(Transcoder):
    """A transcoder that runs a process for each NAR; see `ncps.ports.transcoding`.

    :param create: makes the new file; raises StorageFull or Unavailable.
    """

    def __init__(self, reactor: Any, workers: Threads, create: Callable[[], SpoolFile]) -> None:
        self._reactor = reactor
        self._workers = workers
        self._create = create

    async def transcode(self, source: Body, order: Order) -> Transcoded:
        """See `Transcoder`."""
        file = self._create()
        try:
            child = self._spawn(file, order)
            try:
                deadline_s = SPARE_S + order.nar_size / SLOWEST / _part(order)
                late = f"the process that compresses has not ended within {deadline_s:.0f} s"
                code = await within(self._reactor, deadline_s, _result(child, source), late)
            finally:
                child.kill()
            return _transcoded(file, child, code)
        except BaseException:
            in_background(self._workers, partial(_remove_blocking, file))
            raise

    def _spawn(self, file: SpoolFile, order: Order) -> _Child:
        child = _Child()
        nice = 0 if order.is_urgent else NICE
        share = round(100 * order.cpu_share)
        numbers = (TARGET, order.nar_size, order.level, order.threads, share, nice)
        words = [order.compression, *map(str, numbers)]
        command = [sys.executable, "-S", "-P", "-m", "ncps.process.transcoding", *words]
        path = os.pathsep.join(str(Path(each).absolute()) for each in sys.path)
        passed = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        try:
            self._reactor.spawnProcess(
                child,
                sys.executable,
                command,
                env={"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **passed},
                childFDs={0: "w", 1: "r", 2: "r", TARGET: file.fd},
            )
        except OSError as error:
            raise Unavailable(f"no process can be started: {error.strerror}") from error
        return child


def _part(order: Order) -> float:
    """Return the part of one processor that an order may use, at most 1."""
    return min(1.0, order.cpu_share or 1.0)


def _remove_blocking(file: SpoolFile) -> None:
    file.discard()
    file.close()


async def _result(child: _Child, source: Body) -> int:
    await child.feed(source)
    return await child.ended.wait()


def _transcoded(file: SpoolFile, child: _Child, code: int) -> Transcoded:
    """Parse the output of a process. Raises the Corrupt, StorageFull or Unavailable in it."""
    try:
        answer: dict[str, Any] = json.loads(child.output) if code == 0 else {}
        if "error" not in answer:
            return Transcoded(
                file=file,
                nar_hash=Hash.parse(answer["nar_hash"]),
                nar_size=answer["nar_size"],
                file_hash=Hash.parse(answer["file_hash"]),
                file_size=answer["file_size"],
                cpu_s=answer["cpu_s"],
            )
    except (ValueError, KeyError, Malformed):
        last = bytes(child.errors).decode("utf-8", "replace").strip().rpartition("\n")[2]
        if -code in _GENTLE:
            raise Unavailable("the process that compresses was told to stop") from None
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        raise Corrupt(f"the process that compresses ended by {how}: {last[:200]}") from None
    kinds = {"corrupt": Corrupt, "memory": Corrupt, "full": StorageFull}
    raise kinds.get(answer["error"], Unavailable)(str(answer["reason"]))
