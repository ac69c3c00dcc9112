"""A stand-in for systemd that receives the messages of a daemon."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.waiting import wait_until

DEADLINE_S = 30.0


class Manager:
    """Listens at a socket; use it as a context manager.

    :ivar told: the messages so far, each as a list of lines.
    """

    def __init__(self, directory: Path) -> None:
        self.told: list[list[str]] = []
        self._path = directory / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def __enter__(self) -> Self:
        self._socket.bind(str(self._path))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()
        self._path.unlink()

    def variables(self, watchdog_s: float = 0.0) -> Mapping[str, str]:
        """Return the variables that systemd would set, except the process id."""
        watchdog = {"WATCHDOG_USEC": str(round(watchdog_s * 1e6))} if watchdog_s else {}
        return {"NOTIFY_SOCKET": str(self._path), **watchdog}

    def look(self) -> list[list[str]]:
        """Read the new messages, and return all messages."""
        while True:
            try:
                self.told.append(self._socket.recv(65536).decode().split("\n"))
            except BlockingIOError:
                return self.told

    def lines(self, beginning: str) -> list[str]:
        """Return all lines so far with this prefix."""
        return [line for lines in self.look() for line in lines if line.startswith(beginning)]

    def wait_for(self, beginning: str, count: int = 1) -> list[str]:
        """Wait until there are `count` lines with this prefix; return the last message."""
        wait_until(
            lambda: len(self.lines(beginning)) >= count, f"{count} {beginning}", deadline=DEADLINE_S
        )
        return next(
            lines
            for lines in reversed(self.told)
            if any(line.startswith(beginning) for line in lines)
        )

    def is_silent(self, seconds: float) -> bool:
        """Return whether no watchdog message comes in this time."""
        before = len(self.lines("WATCHDOG=1"))
        time.sleep(seconds)
        return len(self.lines("WATCHDOG=1")) == before
