"""The meaning of the signals that a process gets.

    SIGTERM, SIGINT    the first: end in order; the second: cut what still runs, and end
    SIGHUP             read the settings again, and take what a running process can take
    SIGUSR1, SIGUSR2   nothing, unless something else hears them: twistd turns its log at SIGUSR1

Python calls a handler between any two steps of the main thread, within a lock as well. So a handler
here only tells the reactor what to do next.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from twisted.logger import Logger

CUT_S: Final = 5.0
"""Seconds that a process has to end after a second signal, before it ends as if killed."""
_LAST_WORDS_S: Final = 0.1  # in which a thread writes the log
_ENDING = (signal.SIGINT, signal.SIGTERM)
_log = Logger()


def hear_signals(
    reactor: Any,
    cut: Callable[[], object],
    reload: Callable[[], object],
    *,
    cut_s: float = CUT_S,
    leave: Callable[[int], object] = os._exit,
) -> None:
    """Let signals mean what the module says, from the reactor's start on.

    :param cut: called at the second signal, by the reactor.
    :param reload: called at SIGHUP, by the reactor.
    :param cut_s: seconds between that and `leave`, where the process has not ended.
    :param leave: ends the process at once, with an exit code.
    """
    ending = _Ending(reactor, cut, cut_s, leave)

    def started() -> None:
        # Not before: twistd hears SIGUSR1 only where nothing else does.
        ignore_others(reactor, reload)
        ending.install()

    reactor.addSystemEventTrigger("after", "startup", started)


def hear_no_more() -> None:
    """Ignore all signals from now on, so that a process at its very end keeps its exit code."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)


class _Ending:
    """Counts the signals that end a process."""

    def __init__(
        self,
        reactor: Any,
        cut: Callable[[], object],
        cut_s: float,
        leave: Callable[[int], object],
    ) -> None:
        self._reactor = reactor
        self._cut = cut
        self._cut_s = cut_s
        self._leave = leave
        self._handlers: dict[int, Any] = {}
        self._heard = 0

    def install(self) -> None:
        """Stand before the reactor's handlers, which take a second signal for a fatal error."""
        for number in _ENDING:
            handler = signal.getsignal(number)
            if callable(handler):  # neither left to the system nor ignored
                self._handlers[number] = handler
                signal.signal(number, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._heard += 1
        if self._heard == 1:
            self._handlers[number](number, frame)
        elif self._heard == 2:
            self._reactor.callFromThread(self._cut_now)

    def _cut_now(self) -> None:
        _log.info("second signal to stop: everything that still runs is cut")
        self._reactor.callLater(self._cut_s, self._give_up)
        self._cut()

    def _give_up(self) -> None:
        _log.error("still running {seconds} s after the cut: exiting at once", seconds=self._cut_s)
        self._reactor.callLater(_LAST_WORDS_S, self._leave, 1)


def ignore_others(reactor: Any, reload: Callable[[], object]) -> None:
    """Let the signals that would kill a process without any order do nothing, SIGHUP a reload.

    Those that something else hears or ignores already stay as they are.
    """

    def hear_hangup(number: int, frame: FrameType | None) -> None:
        del number, frame
        reactor.callFromThread(reload)

    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        if signal.getsignal(number) == signal.SIG_DFL:
            is_hangup = number == signal.SIGHUP
            signal.signal(number, hear_hangup if is_hangup else lambda *_: None)
