"""The meaning of the signals that a process gets.

    SIGTERM, SIGINT    the first: end in order; the second: cut all running work, and end
    SIGHUP             read the settings again, and apply those that a running process can apply
    SIGUSR1, SIGUSR2   nothing, unless other code handles them: twistd rotates its log at SIGUSR1

Python calls a handler between any two steps of the main thread, also while that thread has a lock.
So the handlers here only tell the reactor what to do next.
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
_LAST_WORDS_S: Final = 0.1  # a thread needs this time to write the log
_ENDING = (signal.SIGINT, signal.SIGTERM)
_log = Logger()


def handle_signals(
    reactor: Any,
    cut: Callable[[], object],
    reload: Callable[[], object],
    *,
    cut_s: float = CUT_S,
    leave: Callable[[int], object] = os._exit,
) -> None:
    """Handle signals as the module says, from the start of the reactor on.

    :param cut: called by the reactor at the second signal.
    :param reload: called by the reactor at SIGHUP.
    :param cut_s: seconds from `cut` to `leave` if the process has not ended.
    :param leave: ends the process immediately, with an exit code.
    """
    ending = _Ending(reactor, cut, cut_s, leave)

    def started() -> None:
        # Not earlier: twistd handles SIGUSR1 only if no handler is installed.
        ignore_others(reactor, reload)
        ending.install()

    reactor.addSystemEventTrigger("after", "startup", started)


def ignore_endings() -> None:
    """Ignore the ending signals from now on, so that the process keeps its exit code."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)


class _Ending:
    """The handler of the signals that end a process."""

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
        self._received = 0

    def install(self) -> None:
        """Wrap the reactor's handlers, for which a second signal is a fatal error."""
        for number in _ENDING:
            handler = signal.getsignal(number)
            if callable(handler):  # neither left to the system nor ignored
                self._handlers[number] = handler
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._received += 1
        if self._received == 1:
            self._handlers[number](number, frame)
        elif self._received == 2:
            self._reactor.callFromThread(self._cut_now)

    def _cut_now(self) -> None:
        _log.info("second signal to stop: everything that still runs is cut")
        self._reactor.callLater(self._cut_s, self._give_up)
        self._cut()

    def _give_up(self) -> None:
        _log.error("still running {seconds} s after the cut: exiting now", seconds=self._cut_s)
        self._reactor.callLater(_LAST_WORDS_S, self._leave, 1)


def ignore_others(reactor: Any, reload: Callable[[], object]) -> None:
    """Reload at SIGHUP, and ignore SIGUSR1 and SIGUSR2, instead of the default, which kills.

    A signal that has a handler already, or is ignored, stays so.
    """

    def handle_hangup(number: int, frame: FrameType | None) -> None:
        del number, frame
        reactor.callFromThread(reload)

    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        if signal.getsignal(number) == signal.SIG_DFL:
            is_hangup = number == signal.SIGHUP
            signal.signal(number, handle_hangup if is_hangup else lambda *_: None)
