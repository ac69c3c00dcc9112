"""The levels of the log, which select the events for an observer."""

from __future__ import annotations

from typing import Final

from attrs import define
from twisted.logger import ILogObserver, LogEvent, LogLevel
from zope.interface import implementer

from ncps.observe.decisions import log_decisions

LEVELS = {
    "trace": LogLevel.debug,
    "debug": LogLevel.debug,
    "info": LogLevel.info,
    "warn": LogLevel.warn,
    "error": LogLevel.error,
    "fatal": LogLevel.critical,
    "panic": LogLevel.critical,
}


def _is_noise(event: LogEvent) -> bool:
    """Whether an event is only a step of Twisted, such as the start of a factory."""
    if event.get("log_level") not in {LogLevel.info, LogLevel.debug}:
        return False
    namespace = str(event.get("log_namespace", ""))
    template = str(event.get("log_format", ""))
    return (
        namespace == "log_legacy"
        or namespace.startswith("twisted.")
        or template.startswith(("Starting factory", "Stopping factory"))
    )


@implementer(ILogObserver)
@define(eq=False)
class _Selecting:
    """An observer that passes on events of some levels.

    :param has_noise: whether steps of Twisted are passed on, as debug messages.
    """

    levels: frozenset[object]
    inner: ILogObserver
    has_noise: bool = False

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_level") not in self.levels:
            return
        if _is_noise(event):
            if self.has_noise:
                self.inner({**event, "log_level": LogLevel.debug})
            return
        self.inner(event)


_selecting: Final[list[_Selecting]] = []


def selecting(level: str, inner: ILogObserver, *, is_first: bool = False) -> ILogObserver:
    """Make an observer that passes on events of a level and above; `change_level` changes it.

    :param level: one of `LEVELS`.
    :param is_first: whether `change_level` forgets all observers that were made before.
    """
    if is_first:
        _selecting.clear()
    made = _Selecting(_from(level), inner, has_noise=level == "trace")
    _selecting.append(made)
    return made


def _from(level: str) -> frozenset[object]:
    """Return the levels of this one and above."""
    return frozenset(each for each in LogLevel.iterconstants() if each >= LEVELS[level])


def change_level(level: str) -> None:
    """Make the latest observers pass on events of another level and above."""
    tell_decisions(level)
    for each in _selecting:
        each.levels, each.has_noise = _from(level), level == "trace"


def tell_decisions(level: str) -> None:
    """Log decisions from now on if a level shows them."""
    log_decisions(LEVELS[level] is LogLevel.debug)
