"""Complaints: the log lines of OpenTelemetry's libraries, kept for one line of ours.

The libraries log each failure of each batch, sometimes with a traceback. A collector that is away
for a day must not fill the log.
"""

from __future__ import annotations

import logging
import threading
from typing import Final

_LIBRARIES: Final = ("opentelemetry", "grpc")
_LONGEST: Final = 300
_SHARED: Final = ("urllib3.connection", "urllib3.connectionpool", "urllib3.util.retry")
"""Loggers that the store in S3 uses, too; only lines from threads of exporters are kept."""
THREADS: Final = "otel-"
"""The prefix of the names of exporters' threads."""


class _Complaints(threading.local):
    """The first complaint about a batch, which has the cause, and the latest one.

    They are kept for each thread, and each exporter has a thread of its own.
    """

    first = ""
    latest = ""


_complaints: Final = _Complaints()


class _Keeper(logging.Handler):
    """A handler that keeps complaints."""

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
        """Keep a record of an exporter's thread; return whether the record is to be logged."""
        is_exporters = (record.threadName or "").startswith(THREADS)
        if is_exporters:
            self.handle(record)
        return not is_exporters


_keeper: Final = _Keeper()


def keep_complaints() -> None:
    """Keep the lines that the libraries log from now on, instead of logging them."""
    for name in _LIBRARIES:
        logger = logging.getLogger(name)
        logger.propagate = False
        if _keeper not in logger.handlers:
            logger.addHandler(_keeper)
    for name in _SHARED:
        logging.getLogger(name).addFilter(_keeper.keep)


def forget_complaint() -> None:
    """Forget the complaints of this thread: the next batch may be lost for another reason."""
    _complaints.first = _complaints.latest = ""


def latest_complaint() -> str:
    """Return the complaints of this thread since `forget_complaint`; empty if there are none."""
    first, latest = _complaints.first, _complaints.latest
    return first if first == latest else f"{first} {latest}"
