"""Log output: one line an event, for people or as JSON, without secrets.

An event of `twisted.logger` is a dictionary: a template and its fields. People read the template
filled in; programs read the fields. No value can break a line or take the place of another field.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from select import PIPE_BUF
from time import time
from typing import TextIO, cast

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
from ncps.observe.log_lines import Batch, harmless, human_head, quoted, stamp
from ncps.observe.log_queue import Sink

LEVELS = {
    "trace": LogLevel.debug,
    "debug": LogLevel.debug,
    "info": LogLevel.info,
    "warn": LogLevel.warn,
    "error": LogLevel.error,
    "fatal": LogLevel.critical,
    "panic": LogLevel.critical,
}
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
#: What `twisted.python.log` adds to an event for observers of the old kind.
_LEGACY = frozenset(
    {"message", "time", "system", "isError", "format", "failure", "why", "logLevel"}
)
REDACTED = "***"
_log = Logger(namespace="ncps")


def _plain(value: object) -> str | int | float | bool | None:
    """Return a value that JSON can say, of bounded length."""
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
    """Whether a template holds names of fields alone, which Python's own formatting fills in."""
    return _PLAIN_TEMPLATE.fullmatch(template) is not None


def _filled_in(event: LogEvent) -> str:
    template = event.get("log_format")
    if isinstance(template, str) and _is_plain(template):
        try:
            return template.format_map(event)
        except Exception:  # noqa: BLE001 - whatever a field's own code may raise; Twisted tells it
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
    parts = [
        f'{{"time": "{stamp(event.get("log_time"))}", "level": "{_level_name(event)}"',
        f'"message": {quoted(_message(event))}',
        f'"logger": {quoted(str(event.get("log_namespace", "")))}',
    ]
    taken = _ALWAYS
    failure = event.get("log_failure")
    if isinstance(failure, Failure):
        taken = _OURS
        parts.append(f'"error": {_json(f"{type(failure.value).__name__}: {failure.value}")}')
        parts.append(f'"traceback": {quoted(_traceback(failure))}')
    for name, value in event.items():
        if name[:4] == "log_" or name in legacy:
            continue
        key = f"{name}_" if name in taken else name
        parts.append(f"{quoted(key)}: {_json(value)}")
    return ", ".join(parts) + "}"


def _json(value: object) -> str:
    """Write a value; the usual kinds without the machinery of `json.dumps`."""
    kind = type(value)
    if kind is str and len(cast("str", value)) <= _LONGEST_VALUE:
        return quoted(cast("str", value))
    if kind is int:
        number = cast("int", value)
        if -(2**63) < number < 2**63:
            return str(number)
    if kind is bool:
        return "true" if value else "false"
    if kind is float and math.isfinite(cast("float", value)):
        return repr(value)
    return json.dumps(_plain(value))


def human_line(event: LogEvent, prefix: str = "") -> str:
    """Return the event for people; a traceback follows in indented lines."""
    event = redacted(event)
    head = human_head(event.get("log_time"), _level_name(event))
    line = f"{prefix}{head} {harmless(_message(event))}"
    failure = event.get("log_failure")
    if isinstance(failure, Failure):
        for part in _traceback(failure).splitlines():
            line += "\n    " + harmless(part)
    return line


@implementer(ILogObserver)
@frozen
class LineObserver:
    """Writes the line of an event, or those of a batch.

    Never raises: a broken log must not break the cache.

    :param is_shared: whether other processes write there, too: then no more goes out at once than
        a pipe takes in one piece, so that no line gets into the middle of another.
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
        except Exception as error:  # noqa: BLE001  # whatever a field's own code may raise
            what = {"level": "error", "message": f"unloggable event: {type(error)}"}
            lines = f"{json.dumps(what)}\n"
        try:
            for piece in _pieces(lines) if batch is not None and self.is_shared else (lines,):
                self.stream.write(piece)
                self.stream.flush()
        except (OSError, ValueError):
            # The stream is gone or full; there is nobody left to tell.
            return


def _pieces(lines: str) -> Iterator[str]:
    """Divide lines into pieces that a pipe takes whole; a line longer than that is one."""
    piece, size = "", 0
    for line in lines.split("\n")[:-1]:
        length = len(line.encode("utf-8", "replace")) + 1
        if piece and size + length > PIPE_BUF:
            yield piece
            piece, size = "", 0
        piece += f"{line}\n"
        size += length
    yield piece


def demoted(event: LogEvent) -> LogEvent:
    """Make Twisted's own steps (factories starting, ports opening) debug messages."""
    if event.get("log_level") is not LogLevel.info:
        return event
    namespace = str(event.get("log_namespace", ""))
    template = str(event.get("log_format", ""))
    is_noise = (
        namespace == "log_legacy"
        or namespace.startswith("twisted.")
        or template.startswith(("Starting factory", "Stopping factory"))
    )
    return {**event, "log_level": LogLevel.debug} if is_noise else event


@implementer(ILogObserver)
@frozen
class _Selecting:
    """Passes on events of some levels, after `demoted`."""

    levels: frozenset[object]
    inner: ILogObserver

    def __call__(self, event: LogEvent) -> None:
        event = demoted(event)
        if event.get("log_level") in self.levels:
            self.inner(event)


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
    :param prefix: put in front of lines for people.
    :param worker: number of this process among several; 0 for none.
    :param is_queued: whether a thread writes, so that nobody waits for a reader of the stream.
    """
    if worker:
        prefix += f"[{worker}] "
    last = f', "worker": {worker}}}' if worker else "}"

    def line_of(event: LogEvent) -> str:
        return human_line(event, prefix) if human else json_line(event)[:-1] + last

    lines = LineObserver(
        _queue(stream, line_of) if is_queued else stream,
        line_of,
        lambda batch: batch.human_lines(prefix) if human else batch.json_lines(last),
        is_shared=bool(worker),
    )
    levels = frozenset(each for each in LogLevel.iterconstants() if each >= LEVELS[level])
    return _Selecting(levels, lines)


def _queue(stream: TextIO, line_of: Callable[[LogEvent], str]) -> Sink:
    def told(missing: int) -> str:
        event: LogEvent = {
            "log_time": time(),
            "log_level": LogLevel.warn,
            "log_namespace": "ncps.observe.logs",
            "log_format": "{lines} lines of the log are missing: nothing took them in time",
            "lines": missing,
        }
        return f"{line_of(event)}\n"

    return log_queue.before(stream, told)


class StandardLibraryBridge(logging.Handler):
    """Passes warnings and worse of `logging`, which libraries use, to `twisted.logger`."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one record on."""
        try:
            text = record.getMessage()
        except (TypeError, ValueError):
            text = str(record.msg)
        level = (
            LogLevel.warn
            if record.levelno < logging.ERROR
            else LogLevel.error
            if record.levelno < logging.CRITICAL
            else LogLevel.critical
        )
        fields: dict[str, object] = {"log_text": text}
        if record.exc_info and record.exc_info[1] is not None:
            kind, value, trace = record.exc_info
            fields["log_failure"] = Failure(value, kind, trace)
        Logger(namespace=record.name).emit(level, "{log_text}", **fields)


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
    """Send all events of this process to a stream; called again, change level and stream.

    :param level: one of `LEVELS`.
    :param human: lines for people instead of JSON.
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
    """Log what loading the settings had to say."""
    for warning in warnings:
        _log.warn("{notice}", notice=warning)  # `warning` is a field of Twisted's own
