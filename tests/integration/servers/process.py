"""What all servers of the tests share: ports, users, and processes that do not outlive us."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.e2e import daemon

PATIENCE_S = 60.0
"""How long a server may take to start or to end, on a machine that has other things to do."""
_guards: dict[int, subprocess.Popen[bytes]] = {}
"""Processes that end a server when this process has ended without doing so."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has now, nor takes while a server that had it is away."""
    return daemon.free_port()


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    """Poll until it is so; the poll is of another program's state, which tells us nothing."""
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > end:
            raise AssertionError(f"waited {PATIENCE_S:.0f} s for {what}")
        time.sleep(0.02)


def listens(port: int) -> bool:
    """Whether somebody accepts connections on that port."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Account:
    """Whom a server runs as: a user of its own where we are root, else ourselves."""

    def __init__(self, name: str) -> None:
        self.is_other = os.getuid() == 0
        self.user = pwd.getpwnam(name) if self.is_other else pwd.getpwuid(os.getuid())

    def directory(self, prefix: str) -> Path:
        """A new directory of that user, with a path short enough for sockets in it."""
        path = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
        self.own(path)
        return path

    def own(self, path: Path) -> None:
        """Give the user a file."""
        if self.is_other:
            os.chown(path, self.user.pw_uid, self.user.pw_gid)

    def run(self, *command: str | Path, cwd: Path) -> None:
        """Run a command to its end; it must end well."""
        done = subprocess.run(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE_S,
            check=False,
            **self._identity,
        )
        if done.returncode:
            raise AssertionError(f"{command[0]}: {done.stdout.decode(errors='replace')}")

    def start(self, *command: str | Path, cwd: Path, log: Path) -> subprocess.Popen[bytes]:
        """Start a server; it ends with this process, however that ends."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                **self._identity,
            )
        # Reads until this process ends, by whatever cause; PR_SET_PDEATHSIG would end the server
        # with the thread that started it.
        _guards[process.pid] = subprocess.Popen(
            ("sh", "-c", 'cat >/dev/null; kill -INT "$0"; kill -CONT "$0"', str(process.pid)),
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        return process

    @property
    def _identity(self) -> dict[str, Any]:
        if not self.is_other:
            return {}
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}


def end(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """Send a signal and wait for the end; killed if it takes too long."""
    process.send_signal(how)
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    guard = _guards.pop(process.pid, None)
    if guard is not None:
        guard.kill()
        guard.communicate()


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            for child in task.read_text().split():
                found += family(int(child))
    return found


def freeze(process: subprocess.Popen[bytes]) -> None:
    """Stop a server and all its processes in the middle of what they do; see `thaw`."""
    pids = family(process.pid)
    for pid in pids:
        _signal(pid, signal.SIGSTOP)
    wait_until(lambda: all(map(_is_stopped, pids)), "the server to stand still")


def _is_stopped(pid: int) -> bool:
    """Whether every thread of a process has stopped, or the process has ended."""
    try:
        stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:
        return True
    return all(stat.rpartition(") ")[2][0] in "TtZX" for stat in stats)


def thaw(process: subprocess.Popen[bytes]) -> None:
    """Let a frozen server go on."""
    for pid in family(process.pid):
        _signal(pid, signal.SIGCONT)


def _signal(pid: int, what: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # children of servers come and go
        os.kill(pid, what)


def remove(directory: Path) -> None:
    """Remove a server's directory."""
    shutil.rmtree(directory, ignore_errors=True)
