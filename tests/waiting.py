"""Waits for other programs by polling."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from typing import Protocol

DEADLINE = 20.0  # seconds for anything that should happen soon
POLL_S = 0.02
LONGEST_POLL_S = 0.1
"""Seconds between polls at first, and later. A poll costs a daemon up to 0.01 s of CPU time."""
PORTS = 200
"""Ports of one process; sixty processes can have some at the same time."""
TAIL = 40  # lines of a log in an error


class Logged(Protocol):
    """A program with a log."""

    @property
    def log(self) -> str:
        """Its output so far."""
        ...


def tail(program: Logged) -> str:
    """Return the last lines of a program's log."""
    return "\n".join(program.log.splitlines()[-TAIL:])


def wait_until(
    what: Callable[[], object],
    why: str,
    *,
    deadline: float = DEADLINE,
    daemon: Logged | None = None,
) -> None:
    """Wait until something is true. Raises AssertionError after `deadline` seconds.

    :param daemon: a program whose log goes into the error.
    """
    began = time.monotonic()
    while not what():
        waited = time.monotonic() - began
        if waited > deadline:
            more = [] if daemon is None else [tail(daemon)]
            raise AssertionError("\n".join([f"not within {deadline} s: {why}", *more]))
        time.sleep(min(LONGEST_POLL_S, max(POLL_S, waited / 10)))


def free_port() -> int:
    """Return a loopback port that is free now, and that no other process will use soon.

    A daemon needs seconds until it listens, and a server may be stopped for a while.
    """
    ports = _ports(os.getpid())
    for port in islice(ports, PORTS):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no free port")


@cache
def _ports(pid: int) -> Iterator[int]:
    """Return the ports that only this process uses, the least recently used first.

    They are below the kernel's ephemeral ports (32768 and up), which outgoing connections use. A
    locked file reserves a group of them until the process ends.
    """
    del pid  # a forked process has ports of its own
    directory = Path(tempfile.gettempdir(), "ncps-test-ports")
    directory.mkdir(exist_ok=True)
    for first in range(20_000, 32_000, PORTS):
        lock = os.open(directory / str(first), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
        else:
            return cycle(range(first, first + PORTS))
    raise AssertionError("every part of the ports is taken by another process")


def listens(port: int) -> bool:
    """Return whether a program accepts connections on a port of this machine."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def listens_at(path: Path) -> bool:
    """Return whether a program accepts connections at a UNIX socket.

    The file exists a moment before.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(str(path)) == 0
