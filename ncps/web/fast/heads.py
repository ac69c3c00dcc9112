"""Heads of requests that were parsed before: clients repeat all bytes of a head except the path.

The bytes after the path of a simple GET are remembered with the headers that Twisted has parsed
from them. The next request with the same bytes need not be parsed again. Simple means HTTP/1.1
without fields about the connection or a body. Twisted parses every other head, and every head
that does not arrive in one piece.
"""

from __future__ import annotations

import re

from attrs import frozen
from twisted.web.http_headers import Headers

from ncps.aio.recent import BoundedMap

LONGEST = 4096
_MOST = 1024
_TARGET = re.compile(rb"/[!-~]*")
_END = b"\r\n\r\n"
_NOT_SIMPLE = re.compile(
    rb"\n(?:connection|content-length|cookie|expect|keep-alive|proxy-connection|te|trailer"
    rb"|transfer-encoding|upgrade)[ \t]*:",
    re.IGNORECASE,
)
_NOT_PLAIN = (b"range", b"via", b"proxy-authorization", b"if-")


@frozen
class Head:
    """The target of a GET, and the bytes after it."""

    target: bytes
    rest: bytes


@frozen
class KnownHead:
    """The headers that were parsed from the bytes after a target.

    :param headers: shared by requests, which must not change them.
    :param is_plain: whether they ask for the whole page without conditions: they have no range, no
        `If-…` and no `Via`. They may have credentials.
    """

    headers: Headers
    is_plain: bool


def head_of(data: bytes) -> Head | None:
    """Split bytes that may be one whole head of a GET; None for all other bytes."""
    if not data.startswith(b"GET /") or not data.endswith(_END) or len(data) > LONGEST:
        return None
    at = data.find(b" ", 4)
    target = data[4:at]
    if at < 0 or _TARGET.fullmatch(target) is None:
        return None
    return Head(target, data[at:])


class KnownHeads:
    """Known heads by the bytes after the target; the oldest are dropped first."""

    def __init__(self) -> None:
        self._known: BoundedMap[bytes, KnownHead] = BoundedMap(_MOST)
        self.find = self._known.get
        """Return the headers that were parsed from the same bytes before; None for new bytes."""

    def __len__(self) -> int:
        return len(self._known)

    def learn(self, head: Head, headers: Headers) -> None:
        """Remember the headers that Twisted has parsed from a head, if the head is simple."""
        rest = head.rest
        if not rest.startswith(b" HTTP/1.1\r\n") or rest.find(_END) != len(rest) - len(_END):
            return
        if _NOT_SIMPLE.search(rest) is not None:
            return
        names = [name.lower() for name, _ in headers.getAllRawHeaders()]
        is_plain = not any(name.startswith(_NOT_PLAIN) for name in names)
        self._known.put(rest, KnownHead(headers, is_plain=is_plain))
