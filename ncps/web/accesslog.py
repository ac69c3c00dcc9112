"""The access log: one structured event for each request that has ended."""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger, LogLevel

if TYPE_CHECKING:
    from ncps.web.site import NcpsRequest

LONGEST_LOGGED_PATH = 256

_log = Logger()


def write(request: NcpsRequest) -> None:
    """Log a request; never its query or a header, which may hold secrets."""
    # What `_log.info` does, without its looking through all levels for this one.
    event = {
        "log_logger": _log,
        "log_level": LogLevel.info,
        "log_namespace": _log.namespace,
        "log_source": None,
        "log_time": time(),
        "log_format": "{method} {path} {status} {bytes} bytes in {duration_ms} ms {cache}",
        "method": request.method.decode("ascii"),
        "path": request.path[:LONGEST_LOGGED_PATH].decode("ascii", "backslashreplace"),
        "status": request.code,
        "bytes": request.sentLength,
        "duration_ms": round(request.elapsed * 1000, 1),
        "complete": not request.gone,
        "cache": request.cache,
        "hash": request.digest,
        "upstream": request.upstream,
        "client": _host(request.client),
    }
    _log.observer(event)


def _host(peer: Any) -> str:
    """Name a peer without its port; peers on a UNIX socket have no name."""
    return getattr(peer, "host", None) or "unix"
