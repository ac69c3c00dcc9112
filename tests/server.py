"""The base of every server that tests start, from Redis to the daemon itself."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self

from tests.waiting import free_port, listens, tail, wait_until

PATIENCE_S = 60.0
"""Seconds in which a server must start or end, on a busy machine."""
_guards: dict[int, subprocess.Popen[bytes]] = {}
"""Processes that end a server if this process has ended before."""


class Process(Protocol):
    """The methods of `subprocess.Popen` that a server uses."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float) -> int: ...

    def send_signal(self, sig: int) -> None: ...


class Server:
    """A program that runs on a free port over a directory; it may end and start again there.

    :cvar name: for errors.
    :ivar port: of 127.0.0.1; a restart does not change it.
    :ivar directory: has all of the server's files.
    """

    name: ClassVar[str] = "the server"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self._process: Process | None = None

    def launch(self) -> Process:
        """Start the program, and do not wait for it."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Return whether the running server can do its work."""
        return listens(self.port)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def process(self) -> Process:
        """The server's current or last process."""
        assert self._process is not None
        return self._process

    @property
    def pid(self) -> int:
        """Process id of the current or last process."""
        return self.process.pid

    @property
    def log_file(self) -> Path:
        """The file with its output."""
        return self.directory / "log"

    @property
    def log(self) -> str:
        """The output of all its processes so far."""
        path = self.log_file
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self, deadline: float = PATIENCE_S) -> None:
        """Start it and wait until it answers, for at most `deadline` seconds."""
        self._process = self.launch()
        wait_until(self._is_up, f"{self.name} to answer", deadline=deadline, daemon=self)

    def _is_up(self) -> bool:
        if (code := self.process.poll()) is not None:
            raise AssertionError(f"{self.name} ended by itself with {code}:\n{tail(self)}")
        return self.answers()

    def kill(self) -> None:
        """Kill it."""
        self.end(signal.SIGKILL)

    def end(self, how: signal.Signals) -> None:
        """Send a signal and wait for the end; harmless if it is not running."""
        process, self._process = self._process, None
        if process is not None:
            end(process, how)

    def freeze(self) -> None:
        """Stop it with SIGSTOP, so that its connections stay open, until `thaw`."""
        pids = family(self.pid)
        for pid in pids:
            _signal(pid, signal.SIGSTOP)
        wait_until(lambda: all(map(_is_stopped, pids)), f"{self.name} to stand still", daemon=self)

    def thaw(self) -> None:
        """Let it continue."""
        for pid in family(self.pid):
            _signal(pid, signal.SIGCONT)

    def close(self) -> None:
        """End it for good."""
        self.kill()


def spawn(*command: str | Path, cwd: Path, log: Path, **more: Any) -> subprocess.Popen[bytes]:
    """Start a program that ends when this process ends, also if this process is killed.

    :param log: for both outputs.
    :param more: for `subprocess.Popen`.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            **more,
        )
    # The guard reads until this process ends, by any cause; PR_SET_PDEATHSIG would end the server
    # with the thread that started it.
    _guards[process.pid] = subprocess.Popen(
        ("sh", "-c", 'cat >/dev/null; kill -INT "$0"; kill -CONT "$0"', str(process.pid)),
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    return process


def end(process: Process, how: signal.Signals) -> None:
    """Send a signal and wait for the end; kill the process if that takes too long."""
    process.send_signal(how)
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE_S)
    guard = _guards.pop(process.pid, None)
    if guard is not None:
        guard.kill()
        guard.communicate()


def family(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            for child in task.read_text().split():
                found += family(int(child))
    return found


def _is_stopped(pid: int) -> bool:
    """Return whether every thread of a process has stopped, or the process has ended."""
    try:
        stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:
        return True
    return all(stat.rpartition(") ")[2][0] in "TtZX" for stat in stats)


def _signal(pid: int, what: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # children of servers come and go
        os.kill(pid, what)
