"""Heads of requests that were parsed before: clients repeat all bytes of a head except the path.

The bytes after the path of a simple GET, HEAD or PUT are remembered with the headers that Twisted
has parsed from them. The next request with the same bytes need not be parsed again. Simple means
HTTP/1.1 without fields about the connection or a body. A PUT has the length of its body, whose
digits are not remembered, and may have `Expect`. Twisted parses every other head, and every head
that does not arrive in one piece.
"""

from __future__ import annotations

import re

from attrs import evolve, frozen
from twisted.web.http_headers import Headers

from ncps.aio.recent import BoundedMap

LONGEST = 4096
_MOST = 1024
_TARGET = re.compile(rb"/[!-~]*")
_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"(?<=\r\nContent-Length: )[1-9][0-9]{0,14}(?=\r\n(?![ \t]))")
_LENGTH_LINE = b"\r\nContent-Length: \r\n"
_PUT = b"PUT"  # before `rest` of a PUT: a GET with no digits in its length would be found otherwise
_NOT_SIMPLE = re.compile(
    rb"\n(?:connection|content-length|cookie|keep-alive|proxy-connection|te|trailer"
    rb"|transfer-encoding|upgrade)[ \t]*:",
    re.IGNORECASE,
)
_EXPECT = re.compile(rb"\nexpect[ \t]*:", re.IGNORECASE)
_NOT_PLAIN = (b"range", b"via", b"proxy-authorization", b"if-")


@frozen
class Head:
    """The target of a request, and the bytes after it.

    :param rest: of a PUT, without the digits of its length, and after the letters PUT.
    :param length: of the body, in bytes; 0 for GET and HEAD.
    :param body: the bytes of the body that came with the head.
    """

    target: bytes
    rest: bytes
    method: bytes = b"GET"
    length: int = 0
    body: bytes = b""


@frozen
class KnownHead:
    """The headers that were parsed from the bytes after a target.

    :param headers: shared by requests, which must not change them; without Content-Length.
    :param is_plain: whether they ask for the whole page without conditions: they have no range, no
        `If-…` and no `Via`. They may have credentials.
    """

    headers: Headers
    is_plain: bool


def head_of(data: bytes) -> Head | None:
    """Split bytes that may be one whole head of a GET, HEAD or PUT; None for all other bytes.

    The body of a PUT, or its beginning, may follow the head. The next request may not: a request
    that begins while another one ends adds to the stack, and Twisted has a loop for that.
    """
    if data.startswith(b"PUT /"):
        return _upload_of(data)
    if not data.startswith((b"GET /", b"HEAD /")) or not data.endswith(_END):
        return None
    return _simple(data)


def _simple(data: bytes) -> Head | None:
    method, _, rest = data.partition(b" ")
    at = rest.find(b" ")
    target = rest[:at]
    if len(data) > LONGEST or at < 0 or _TARGET.fullmatch(target) is None:
        return None
    return Head(target, rest[at:], method)


def _upload_of(data: bytes) -> Head | None:
    end = data.find(_END, 0, LONGEST) + len(_END)
    length = _LENGTH.search(data, 0, end)
    if end < len(_END) or length is None:
        return None
    head = _simple(data[: length.start()] + data[length.end() : end])
    body, size = data[end:], int(length[0])
    if head is None or len(body) > size:
        return None
    return evolve(head, rest=_PUT + head.rest, length=size, body=body)


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
        if head.length:
            headers = headers.copy()
            headers.removeHeader(b"Content-Length")
            rest = rest.removeprefix(_PUT).replace(_LENGTH_LINE, b"\r\n", 1)
        elif _EXPECT.search(rest) is not None:  # Twisted itself answers it where no body follows
            return
        if not rest.startswith(b" HTTP/1.1\r\n") or rest.find(_END) != len(rest) - len(_END):
            return
        if _NOT_SIMPLE.search(rest) is not None:
            return
        names = [name.lower() for name, _ in headers.getAllRawHeaders()]
        is_plain = not any(name.startswith(_NOT_PLAIN) for name in names)
        self._known.put(head.rest, KnownHead(headers, is_plain=is_plain))
