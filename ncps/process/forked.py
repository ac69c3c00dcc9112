"""A process from the nursery, with the interface of a process that Twisted has started."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IProcessProtocol
from twisted.internet.process import (
    ProcessReader,
    ProcessWriter,
    registerReapProcessHandler,
    unregisterReapProcessHandler,
)
from twisted.python.failure import Failure

from ncps.process.nursery import Nursery


class ForkedProcess:
    """A child of this process, with its pipes.

    The protocol learns of the end when the process has ended and all its output was read.

    :param reactor: `IReactorFDSet`; it handles SIGCHLD.
    :param reading: this process's ends of pipes to read, by the child's descriptor; closed here.
    :param writing: this process's ends of pipes to write, in the same way.
    """

    def __init__(
        self,
        reactor: Any,
        protocol: IProcessProtocol,
        pid: int,
        reading: Mapping[int, int],
        writing: Mapping[int, int],
    ) -> None:
        self.pid: int | None = pid
        self._protocol = protocol
        self._reason: Exception | None = None
        self._readers = {
            name: ProcessReader(reactor, self, name, fd) for name, fd in reading.items()
        }
        self._writers = {
            name: ProcessWriter(reactor, self, name, fd) for name, fd in writing.items()
        }
        registerReapProcessHandler(pid, self)

    def writeToChild(self, childFD: int, data: bytes) -> None:
        """See `IProcessTransport`; harmless after the end of the process."""
        writer = self._writers.get(childFD)
        if writer is not None:
            writer.write(data)

    def signalProcess(self, signalID: int) -> None:
        """See `IProcessTransport`. Raises ProcessExitedAlready if the process has ended."""
        if self.pid is None:
            raise ProcessExitedAlready
        try:
            os.kill(self.pid, signalID)
        except ProcessLookupError:
            raise ProcessExitedAlready from None

    def childDataReceived(self, name: int, data: bytes) -> None:
        """Pass on the output of the process; called by its reader."""
        self._protocol.childDataReceived(name, data)

    def childConnectionLost(self, name: int, reason: Failure) -> None:
        """Forget a pipe that has ended; called by its reader or writer."""
        del reason
        self._writers.pop(name, None)
        self._readers.pop(name, None)
        self.reapProcess()
        self._tell_end()

    def reapProcess(self) -> None:
        """Reap the process if it has ended; called at SIGCHLD."""
        if self.pid is None:
            return
        with suppress(ChildProcessError):
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                unregisterReapProcessHandler(pid, self)
                self.processEnded(status)

    def processEnded(self, status: int) -> None:
        """Record the end of the process, with its status of wait(2)."""
        self.pid = None
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            self._reason = ProcessDone(status)
        else:
            ended_by = {"signal": -code} if code < 0 else {"exitCode": code}
            self._reason = ProcessTerminated(status=status, **ended_by)
        self._tell_end()

    def _tell_end(self) -> None:
        reason = self._reason
        if reason is None or self._readers:
            return
        self._reason = None
        for writer in list(self._writers.values()):
            writer.loseConnection()
        self._protocol.processEnded(Failure(reason))


def forked(
    reactor: Any,
    nursery: Nursery,
    protocol: IProcessProtocol,
    plan: str,
    fds: Mapping[int, int | str],
) -> ForkedProcess:
    """Fork a worker. Raises NoNursery if there is no nursery, OSError if the fork fails.

    :param fds: `childFDs` of `IReactorProcess`, without a gap: a descriptor, or "r" or "w" for a
        pipe from or to the child.
    """
    ours: dict[str, dict[int, int]] = {"r": {}, "w": {}}
    given: list[int] = []
    theirs: list[int] = []
    try:
        for number in range(len(fds)):
            fd = fds[number]
            if isinstance(fd, str):
                read, write = os.pipe()
                ours[fd][number], fd = (read, write) if fd == "r" else (write, read)
                theirs.append(fd)
            given.append(fd)
        pid = nursery.fork(plan, given)
    except BaseException:
        for fd in (*ours["r"].values(), *ours["w"].values()):
            os.close(fd)
        raise
    finally:
        for fd in theirs:
            os.close(fd)
    return ForkedProcess(reactor, protocol, pid, ours["r"], ours["w"])
