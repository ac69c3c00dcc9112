"""The reasons why connections fail, in words for people.

The texts go to logs, to `/readyz` and to clients, where names of Python classes would not help.
"""

from __future__ import annotations

import os
import re
from typing import Final

from OpenSSL import SSL
from twisted.internet import error as network

_WORDS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (network.ConnectionRefusedError, "connection refused"),
    (network.TCPTimedOutError, "no connection within the time of the system"),
    (network.TimeoutError, "no connection in time"),
    (network.NoRouteError, "no route to the host"),
    (network.UnknownHostError, "unknown host"),
    (network.DNSLookupError, "the name was not found"),
    (network.ConnectionDone, "the other side closed the connection"),
    (network.ConnectionAborted, "the connection was aborted"),
    (network.ConnectionLost, "the connection broke off"),
)
_BORDER: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
_LONGEST: Final = 200


def reason_of(error: BaseException | None) -> str:
    """Say in a few words why a connection failed."""
    if error is None:
        return "the reason is not known"
    if isinstance(error, SSL.Error):
        found = error.args[0] if error.args and isinstance(error.args[0], list) else []
        return ", ".join(str(entry[-1]) for entry in found) or "an error of TLS"
    code = getattr(error, "osError", None)
    for kind, words in _WORDS:
        if type(error) is kind:
            details = "" if code else " ".join(map(str, error.args))
            return f"{words} ({details})"[:_LONGEST] if details else words
    if isinstance(code, int):
        return os.strerror(code)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).rstrip(".")[:_LONGEST] or in_words(type(error))


def in_words(kind: type[BaseException]) -> str:
    """Return the name of a class as words: "response never received"."""
    return _BORDER.sub(" ", kind.__name__).lower()
