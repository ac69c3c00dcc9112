"""Repeated warnings and errors: the first is written immediately, later ones are counted.

After `WINDOW_S` seconds, one line says how many there were, and again after each further window in
which the text is repeated. Two events are the same if they have the same level, origin and text,
with all fields filled in. An event of level info ends the windows of its origin: it usually says
that a part which was away answers again, so that the next warning is news. An event with the field
`log_always` answers an act of the operator, and is always written.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from contextvars import Context
from time import monotonic
from typing import Final

from attrs import define
from twisted.logger import ILogObserver, LogEvent, LogLevel
from twisted.python.failure import Failure
from zope.interface import implementer

WINDOW_S: Final = 60.0
"""Seconds for which events of one text are counted before a line gives their number."""

MOST: Final = 256
"""Texts that are remembered, at most; for a further one, the oldest is reported early."""

_LONGEST: Final = 500
_COUNTED: Final = (LogLevel.warn, LogLevel.error)
_Key = tuple[str, object, int]
"""Level, origin, and hash of the text."""

_PLAIN: Final = (str, int, float, bool)


@define
class _Repeated:
    """An event that was written, and the number of equal ones since."""

    event: LogEvent
    text: str
    since: float
    count: int = 0

    def time_at(self, now: float) -> float:
        """Return the `log_time` of this moment of the monotonic clock."""
        written: float = self.event["log_time"]
        return written + now - self.since


@implementer(ILogObserver)
class Repeats:
    """An observer that counts repeated events instead of passing them on.

    Any thread may call it, even from within itself.

    :param text_of: returns the text of an event, of bounded length.
    :param now: returns the seconds of a monotonic clock.
    """

    def __init__(
        self,
        inner: ILogObserver,
        text_of: Callable[[LogEvent], str],
        *,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._inner = inner
        self._text_of = text_of
        self._now = now
        self._lock = threading.RLock()
        self._seen: OrderedDict[_Key, _Repeated] = OrderedDict()

    def __call__(self, event: LogEvent) -> None:
        """Write an event, unless an equal one was written within the window."""
        level = event.get("log_level")
        if level not in _COUNTED or event.get("log_always"):
            if level is LogLevel.info and self._seen and "log_batch" not in event:
                self._end_of(event.get("log_namespace"))
            self._inner(event)
            return
        self.tell()
        text = self._text_of(event)
        key = str(level), event.get("log_namespace"), hash((text, _cause(event)))
        with self._lock:
            known = self._seen.get(key)
            if known is not None:
                known.count += 1
                return
            self._seen[key] = _Repeated(_facts(event), text[:_LONGEST], self._now())
            oldest = self._seen.popitem(last=False)[1] if len(self._seen) > MOST else None
        if oldest is not None:
            self._tell(oldest)
        self._inner(event)

    def tell(self, *, all_: bool = False) -> None:
        """Write the number of repetitions of each text whose window is over.

        :param all_: report all texts, since the process ends.
        """
        over: list[_Repeated] = []
        with self._lock:
            now = self._now()
            while self._seen:
                key, oldest = next(iter(self._seen.items()))
                if now - oldest.since < WINDOW_S and not all_:
                    break
                del self._seen[key]
                over.append(oldest)
                if oldest.count and not all_:  # it may be repeated further
                    again = {**oldest.event, "log_time": oldest.time_at(now)}
                    self._seen[key] = _Repeated(again, oldest.text, now)
        for repeated in over:
            self._tell(repeated)

    def _end_of(self, namespace: object) -> None:
        """End the windows of an origin."""
        with self._lock:
            keys = [key for key in self._seen if key[1] == namespace]
            over = [self._seen.pop(key) for key in keys]
        for repeated in over:
            self._tell(repeated)

    def _tell(self, repeated: _Repeated) -> None:
        if not repeated.count:
            return
        now = self._now()
        seconds = max(1, round(now - repeated.since))
        often = "once more" if repeated.count == 1 else f"{repeated.count} more times"
        Context().run(  # outside the trace of the work that runs now
            self._inner,
            {
                **repeated.event,
                "log_time": repeated.time_at(now),
                "log_format": "{log_text} ({log_often} in {repeated_s} s)",
                "log_text": repeated.text,
                "log_often": often,
                "repeated": repeated.count,
                "repeated_s": seconds,
            },
        )


def _cause(event: LogEvent) -> str:
    failure = event.get("log_failure")
    if not isinstance(failure, Failure):
        return ""
    try:
        return f"{failure.type}: {failure.value}"
    except Exception:  # noqa: BLE001 - an error's own code may raise anything
        return f"{failure.type}"


def _facts(event: LogEvent) -> LogEvent:
    """Return the fields of an event to keep: plain values, without a traceback."""
    kept: LogEvent = {
        name: value
        for name, value in event.items()
        if isinstance(value, _PLAIN) and (not isinstance(value, str) or len(value) <= _LONGEST)
    }
    kept["log_level"] = event.get("log_level")
    kept["log_time"] = event.get("log_time", 0.0)
    return kept
