"""A process that is told to end twice ends once.

Twisted's reactor stops at the first signal, and its handlers log the second one as a fatal error.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

_ENDING = (signal.SIGINT, signal.SIGTERM)


def hear_one_signal(reactor: Any) -> None:
    """Let the reactor, once it runs, hear the first SIGINT or SIGTERM alone."""
    reactor.addSystemEventTrigger("after", "startup", _wrap_handlers)


def _wrap_handlers() -> None:
    handlers = {number: signal.getsignal(number) for number in _ENDING}
    heard: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        handler = handlers[signal.Signals(number)]
        if not heard and callable(handler):
            heard.append(number)
            handler(number, frame)

    for number, handler in handlers.items():
        if callable(handler):  # neither left to the system nor ignored
            signal.signal(number, hear)
