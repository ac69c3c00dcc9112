"""Heads of requests that were parsed before: clients repeat all but the path, byte for byte.

What follows the path in a simple GET is remembered with the headers that Twisted has parsed from
it, and the next request with the same bytes there need not be parsed again. Simple means HTTP/1.1
with nothing that concerns the connection or a body. Everything else, and every head that does not
arrive in one piece, is Twisted's alone.
"""

from __future__ import annotations

import re

from twisted.web.http_headers import Headers

LONGEST = 4096
_MOST = 1024
_TARGET = re.compile(rb"/[!-~]*")
_END = b"\r\n\r\n"
_NOT_SIMPLE = re.compile(
    rb"\n(?:connection|content-length|cookie|expect|keep-alive|proxy-connection|te|trailer"
    rb"|transfer-encoding|upgrade)[ \t]*:",
    re.IGNORECASE,
)


class Head:
    """The target of a GET, and the bytes after it."""

    __slots__ = ("rest", "target")

    def __init__(self, target: bytes, rest: bytes) -> None:
        self.target = target
        self.rest = rest


def head_of(data: bytes) -> Head | None:
    """Take apart what may be one whole head of a GET; None if it is anything else."""
    if not data.startswith(b"GET /") or not data.endswith(_END) or len(data) > LONGEST:
        return None
    at = data.find(b" ", 4)
    target = data[4:at]
    if at < 0 or _TARGET.fullmatch(target) is None:
        return None
    return Head(target, data[at:])


class KnownHeads:
    """What follows the path, and its headers; nobody may change those. Forgets all when full."""

    def __init__(self) -> None:
        self._known: dict[bytes, Headers] = {}

    def __len__(self) -> int:
        return len(self._known)

    def find(self, head: Head) -> Headers | None:
        """Return the headers, if these very bytes were parsed before."""
        return self._known.get(head.rest)

    def learn(self, head: Head, headers: Headers) -> None:
        """Remember what Twisted has parsed from a head, if it is a simple one."""
        rest = head.rest
        if not rest.startswith(b" HTTP/1.1\r\n") or rest.find(_END) != len(rest) - len(_END):
            return
        if _NOT_SIMPLE.search(rest) is not None:
            return
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[rest] = headers
