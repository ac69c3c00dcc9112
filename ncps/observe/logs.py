"""Log output: one line for each event, for people or as JSON, without secrets.

An event of `twisted.logger` is a dictionary: a template and its fields. Lines for people hold the
filled-in template, and lines for programs also the fields. No value can break a line or replace
another field.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from select import PIPE_BUF
from time import time
from typing import TextIO
from weakref import WeakSet

from attrs import field, frozen
from twisted.logger import (
    ILogObserver,
    LogBeginner,
    LogEvent,
    Logger,
    LogLevel,
    formatEvent,
    globalLogBeginner,
    globalLogPublisher,
)
from twisted.python.failure import Failure
from twisted.python.reflect import safe_repr
from zope.interface import implementer

from ncps.observe import log_queue
from ncps.observe.log_levels import selecting
from ncps.observe.log_lines import Batch, Paint, harmless, human_head, paint_for, plain, stamp
from ncps.observe.log_order import InOrder
from ncps.observe.log_queue import Sink
from ncps.observe.log_repeats import Repeats
from ncps.observe.standard_library import StandardLibraryBridge
from ncps.observe.tracing.spans import current
from ncps.settings.journal import is_journal, marked

_LONGEST_VALUE = 4096
_LONGEST_TRACEBACK = 32768
_SECRET = re.compile(
    r"(?:^|_)(?:authorization|password|passwd|token|tokens|secret|secrets|credentials?|cookie)"
    r"(?:_|$)|(?:secret|private|signing|access)_?key",
    re.IGNORECASE,
)
_PLAIN_TEMPLATE = re.compile(r"(?:[^{}]|\{[a-z_][a-z0-9_]*\})*")
_ALWAYS = frozenset({"time", "level", "message", "logger"})
_OURS = _ALWAYS | {"error", "traceback"}
#: Fields that `twisted.python.log` adds to an event for observers of the old kind.
_LEGACY = frozenset(
    {"message", "time", "system", "isError", "format", "failure", "why", "logLevel"}
)
_FOR_PEOPLE = ("client", "hash", "upstream")
REDACTED = "***"
_log = Logger(namespace="ncps")
_encode = json.JSONEncoder().encode


def _plain(value: object) -> str | int | float | bool | None:
    """Return the value, or a text of bounded length if JSON cannot hold it."""
    if type(value) is str and len(value) <= _LONGEST_VALUE:
        return value
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) < 2**63:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, bytes):
        text = value[:_LONGEST_VALUE].decode("utf-8", "backslashreplace")
    elif isinstance(value, str):
        text = value
    else:
        text = safe_repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


@lru_cache(maxsize=1024)
def _is_secret(name: str) -> bool:
    return not name.startswith("log_") and _SECRET.search(name) is not None


def redacted(event: LogEvent) -> LogEvent:
    """Return the event with the values of secret fields replaced."""
    secret = [name for name in event if _is_secret(name)]
    return {**event, **dict.fromkeys(secret, REDACTED)} if secret else event


def _level_name(event: LogEvent) -> str:
    level = event.get("log_level")
    name = str(getattr(level, "name", "info"))
    return {"critical": "fatal"}.get(name, name)


@lru_cache(maxsize=1024)
def _is_plain(template: str) -> bool:
    """Whether a template holds only names of fields, which `str.format_map` fills in."""
    return _PLAIN_TEMPLATE.fullmatch(template) is not None


def _filled_in(event: LogEvent) -> str:
    template = event.get("log_format")
    if isinstance(template, str) and _is_plain(template):
        try:
            return template.format_map(event)
        except Exception:  # noqa: BLE001 - a field's own code may raise anything
            return formatEvent(event)
    return formatEvent(event)


def _message(event: LogEvent) -> str:
    text = _filled_in(event)
    failure = event.get("log_failure")
    if not text and isinstance(failure, Failure):
        text = safe_repr(failure.value)
    return text if len(text) <= _LONGEST_TRACEBACK else f"{text[:_LONGEST_TRACEBACK]}..."


def _traceback(failure: Failure) -> str:
    return failure.getTraceback()[-_LONGEST_TRACEBACK:]


def json_line(event: LogEvent) -> str:
    """Return the event as one JSON object, without the end of line."""
    event = redacted(event)
    legacy = _LEGACY if "isError" in event else frozenset()
    found: dict[str, object] = {
        "time": stamp(event.get("log_time")),
        "level": _level_name(event),
        "message": _message(event),
        "logger": str(event.get("log_namespace", "")),
    }
    taken = _ALWAYS
    failure = event.get("log_failure")
    if isinstance(failure, Failure):
        taken = _OURS
        found["error"] = _plain(f"{type(failure.value).__name__}: {failure.value}")
        found["traceback"] = _traceback(failure)
    for name, value in event.items():
        if name[:4] != "log_" and name not in legacy:
            found[f"{name}_" if name in taken else name] = _plain(value)
    step = current()
    if step.trace_id:
        found["trace_id"], found["span_id"] = step.trace_id, step.span_id
    return _encode(found)


def human_line(event: LogEvent, prefix: str = "", paint: Paint = plain) -> str:
    """Return the event for people; a traceback follows in indented lines.

    Client, hash and upstream are added to the line if the message does not have them.
    """
    event = redacted(event)
    head = human_head(event.get("log_time"), _level_name(event), paint)
    trace_id, text = current().trace_id, _message(event)
    trace = f" trace={trace_id}" if trace_id else ""
    line = f"{prefix}{head} {harmless(f'{text}{_besides(event, text)}{trace}')}".rstrip()
    failure = event.get("log_failure")
    if isinstance(failure, Failure):
        for part in _traceback(failure).splitlines():
            line += "\n    " + harmless(part)
    return line


def _besides(event: LogEvent, text: str) -> str:
    """Return those fields for people that a text does not have."""
    values = [(name, str(_plain(event[name]))) for name in _FOR_PEOPLE if event.get(name)]
    described = ", ".join(f"{name} {value}" for name, value in values if value not in text)
    return f" ({described})" if described else ""


@implementer(ILogObserver)
@frozen
class LineObserver:
    """An observer that writes the line of an event, or the lines of a batch.

    It never raises: an error of the log must not break the cache.

    :param is_shared: whether other processes write there, too. Then a batch is written in pieces
        that a pipe accepts as a whole, so that lines are not mixed.
    """

    stream: Sink
    line_of: Callable[[LogEvent], str] = field(repr=False)
    lines_of: Callable[[Batch], str] = field(repr=False, default=str)
    is_shared: bool = False

    def __call__(self, event: LogEvent) -> None:
        """Write an event."""
        batch = event.get("log_batch")
        try:
            lines = self.lines_of(batch) if batch is not None else f"{self.line_of(event)}\n"
        except Exception as error:  # noqa: BLE001 - a field's own code may raise anything
            what = {"level": "error", "message": f"unloggable event: {type(error)}"}
            lines = f"{json.dumps(what)}\n"
        try:
            for piece in _pieces(lines) if batch is not None and self.is_shared else (lines,):
                self.stream.write(piece)
                self.stream.flush()
        except (OSError, ValueError):
            # The stream is closed or full, and there is no other place for an error.
            return


def _pieces(lines: str) -> Iterator[str]:
    """Divide lines into pieces that a pipe accepts as a whole; a longer line is one piece."""
    piece, size = "", 0
    for line in lines.split("\n")[:-1]:
        length = len(line.encode("utf-8", "replace")) + 1
        if piece and size + length > PIPE_BUF:
            yield piece
            piece, size = "", 0
        piece += f"{line}\n"
        size += length
    yield piece


def observer(
    level: str,
    stream: TextIO,
    *,
    human: bool,
    prefix: str = "",
    worker: int = 0,
    is_queued: bool = False,
) -> ILogObserver:
    """Make an observer that writes events of a level and above.

    :param level: one of `LEVELS`.
    :param prefix: text in front of lines for people.
    :param worker: number of this process among several workers; 0 for none.
    :param is_queued: whether a thread writes, so that no caller waits for the stream.
    """
    if worker:
        prefix += f"[{worker}] "
    last = f', "worker": {worker}}}' if worker else "}"

    is_marked = is_journal(stream, os.environ)
    paint = paint_for(stream, os.environ) if human else plain

    def line_of(event: LogEvent) -> str:
        lines = human_line(event, prefix, paint) if human else json_line(event)[:-1] + last
        return marked(lines, event.get("log_level")) if is_marked else lines

    def lines_of(batch: Batch) -> str:
        lines = batch.human_lines(prefix, paint) if human else batch.json_lines(last)
        return marked(lines, LogLevel.info) if is_marked else lines

    lines = LineObserver(
        _queue(stream, line_of) if is_queued else stream,
        line_of,
        lines_of,
        is_shared=bool(worker),
    )
    repeats = Repeats(InOrder(lines), _message)
    _repeating.add(repeats)
    return selecting(level, repeats, is_first=True)


_repeating: WeakSet[Repeats] = WeakSet()


def tell_repeats(*, all_: bool = False) -> None:
    """Write the numbers of repeated warnings; see `Repeats.tell`."""
    for repeats in tuple(_repeating):
        repeats.tell(all_=all_)


def _queue(stream: TextIO, line_of: Callable[[LogEvent], str]) -> Sink:
    def described(missing: int) -> str:
        event: LogEvent = {
            "log_time": time(),
            "log_level": LogLevel.warn,
            "log_namespace": "ncps.observe.logs",
            "log_format": "{lines} lines of the log are missing: no program read them in time",
            "lines": missing,
        }
        return f"{line_of(event)}\n"

    return log_queue.before(stream, described)


_bridge = StandardLibraryBridge(level=logging.WARNING)
_current: list[ILogObserver] = []


def start_logging(
    level: str,
    stream: TextIO,
    human: bool,
    prefix: str = "",
    *,
    worker: int = 0,
    is_queued: bool = False,
    beginner: LogBeginner = globalLogBeginner,
) -> None:
    """Write all events of this process to a stream; a further call changes level and stream.

    :param level: one of `LEVELS`.
    :param human: whether to write lines for people instead of JSON.
    :param worker: see `observer`.
    :param is_queued: see `observer`.
    """
    chosen = observer(level, stream, human=human, prefix=prefix, worker=worker, is_queued=is_queued)
    if _current and beginner is globalLogBeginner:
        globalLogPublisher.removeObserver(_current.pop())
        globalLogPublisher.addObserver(chosen)
    else:
        beginner.beginLoggingTo([chosen], redirectStandardIO=False)
    if beginner is globalLogBeginner:
        _current.append(chosen)
        if _bridge not in logging.getLogger().handlers:
            logging.getLogger().addHandler(_bridge)


def log_warnings(warnings: Iterable[str]) -> None:
    """Log the warnings of the settings."""
    for warning in warnings:
        _log.warn("{notice}", notice=warning)  # Twisted has a field `warning` of its own
