"""Complaints of OpenTelemetry's libraries: kept for one line of ours, not logged each time.

The libraries log each failure of each batch, some with a traceback. A collector that is away for
a day must not fill the log.
"""

from __future__ import annotations

import logging
import threading
from typing import Final

_LIBRARIES: Final = ("opentelemetry", "grpc")
_LONGEST: Final = 300
_SHARED: Final = ("urllib3.connection", "urllib3.connectionpool", "urllib3.util.retry")
"""Loggers that the store in S3 has, too: only what the threads of exporters log is kept."""
THREADS: Final = "otel-"
"""The beginning of the names of exporters' threads."""


class _Complaints(threading.local):
    """The first complaint about a batch, which has the cause, and the latest one.

    Each exporter has a thread of its own, which complains.
    """

    first = ""
    latest = ""


_complaints: Final = _Complaints()


class _Keeper(logging.Handler):
    """Keeps complaints."""

    def __init__(self) -> None:
        super().__init__(level=logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the text of one record."""
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - a record may be anything
            text = str(record.msg)
        _complaints.latest = " ".join(text.split())[:_LONGEST]
        _complaints.first = _complaints.first or _complaints.latest

    def keep(self, record: logging.LogRecord) -> bool:
        """Keep a record of an exporter's thread, which then goes no further."""
        is_exporters = (record.threadName or "").startswith(THREADS)
        if is_exporters:
            self.handle(record)
        return not is_exporters


_keeper: Final = _Keeper()


def keep_complaints() -> None:
    """Keep the lines that the libraries log from now on, and let none of them through."""
    for name in _LIBRARIES:
        logger = logging.getLogger(name)
        logger.propagate = False
        if _keeper not in logger.handlers:
            logger.addHandler(_keeper)
    for name in _SHARED:
        logging.getLogger(name).addFilter(_keeper.keep)


def forget_complaint() -> None:
    """Forget the complaint of this thread: the next batch may be lost for another reason."""
    _complaints.first = _complaints.latest = ""


def latest_complaint() -> str:
    """Return the complaint of this thread since `forget_complaint`; empty if there is none."""
    first, latest = _complaints.first, _complaints.latest
    return first if first == latest else f"{first} {latest}"
