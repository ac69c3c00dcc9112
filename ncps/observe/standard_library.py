"""The bridge from the log of the standard library, which other libraries use, to ours."""

from __future__ import annotations

import logging

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure


class StandardLibraryBridge(logging.Handler):
    """A handler that passes warnings and errors of `logging` to `twisted.logger`."""

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
