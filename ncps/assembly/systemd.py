"""Messages to the service manager of systemd: states, a line of status, and a pulse.

READY=1, RELOADING=1, STOPPING=1    its state
STATUS=...                          one line for `systemctl status`
WATCHDOG=1                          the reactor runs; without it systemd restarts the service

sd_notify(3) describes the protocol: a datagram has one or several lines. Another service manager
with such a socket works, too.
"""

from __future__ import annotations

import faulthandler
import os
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import CLOCK_MONOTONIC, clock_gettime_ns
from typing import Final

from attrs import frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

LEAST_S: Final = 10.0
"""Seconds without a pulse that a healthy process on a busy machine may need."""
TELL_S: Final = 0.2
"""Longest time to send a message to systemd, for which the reactor's thread waits."""
_FASTEST_S: Final = 0.1
_log = Logger()


def notify(*lines: str) -> None:
    """Send lines to systemd if it wants any; never fails, and waits `TELL_S` at most."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
    with suppress(OSError), socket.socket(socket.AF_UNIX, kind) as channel:
        channel.settimeout(TELL_S)
        channel.sendto("\n".join(lines).encode("utf-8", "replace"), address)


def status(text: str) -> str:
    """Return the line that sets the status; a text of several lines becomes one."""
    return f"STATUS={' '.join(text.split())}"


def reloading() -> tuple[str, str]:
    """Return the lines that begin a reload; `READY=1` ends it."""
    return "RELOADING=1", f"MONOTONIC_USEC={clock_gettime_ns(CLOCK_MONOTONIC) // 1000}"


def stopping(longest_s: float) -> tuple[str, str]:
    """Return the lines that begin the end of a process.

    :param longest_s: the time that the end may take. systemd then waits for it, even if its own
        `TimeoutStopSec=` is shorter.
    """
    return "STOPPING=1", f"EXTEND_TIMEOUT_USEC={round(longest_s * 1e6)}"


@frozen
class Watchdog:
    """The watchdog of systemd, as the environment describes it.

    :ivar asked_s: seconds without a pulse after which systemd restarts the service; 0 for never.
    """

    asked_s: float = 0.0

    @classmethod
    def of(cls, environ: Mapping[str, str], pid: int) -> Watchdog:
        """Read the environment; without a watchdog if it is for another process or wrong."""
        text, owner = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
        if owner not in {"", str(pid)} or not (text.isascii() and text.isdigit()):
            return cls()
        return cls(int(text[:18]) / 1e6)

    @property
    def pulse_s(self) -> float:
        """Seconds from one pulse to the next; 0 for no pulse."""
        return max(_FASTEST_S, self.asked_s / 3) if self.asked_s else 0.0

    @property
    def patience_s(self) -> float:
        """Seconds without a pulse after which a process counts as stalled; 0 for never."""
        return max(LEAST_S, self.asked_s) if self.asked_s else 0.0

    def prepare(self) -> tuple[str, ...]:
        """Prepare for SIGABRT; return the lines to send with `READY=1`.

        systemd ends a stalled process with SIGABRT; Python then prints the stack of each thread. A
        time that is too short for a busy machine is raised.
        """
        if not self.asked_s:
            return ()
        if sys.stderr is not None and not faulthandler.is_enabled():
            with suppress(OSError, ValueError, AttributeError):  # standard error is not a file
                faulthandler.enable()
        if self.patience_s == self.asked_s:
            return ()
        _log.warn(
            "WatchdogSec= is {asked} s: on a busy machine, a healthy process may give no sign of"
            " life for that long, so ncps has raised it to {raised} s; set WatchdogSec=30",
            asked=self.asked_s,
            raised=self.patience_s,
        )
        return (f"WATCHDOG_USEC={round(self.patience_s * 1e6)}",)


class Pulse:
    """A sign of life at each interval, as long as the reactor runs.

    :param pulse_s: seconds from one sign to the next; 0 for no signs.
    :param beat: called for each sign; must not raise.
    """

    def __init__(self, clock: IReactorTime, pulse_s: float, beat: Callable[[], object]) -> None:
        self._clock = clock
        self._pulse_s = pulse_s
        self._beat = beat
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """Begin with a first sign now; only once."""
        assert self._call is None, "already started"
        if self._pulse_s:
            self._call = self._clock.callLater(self._pulse_s, self._again)
            self._beat()

    def stop(self) -> None:
        """End; a further call does nothing."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _again(self) -> None:
        self._call = None
        self.start()
