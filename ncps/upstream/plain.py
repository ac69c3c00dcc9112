"""Plain requests: to an upstream's own origin, over kept connections, without the layers of treq.

treq and Twisted's agent parse the URL of each request several times, keep cookies, and read the
head of each answer line by line. Nearly all requests of this cache are alike: GET or HEAD, to the
origin that the operator has configured, with a path of ordinary characters. Such a request is a
path between two texts that are made once for each upstream. Its answer is parsed in one pass if the
head arrives in one piece and has the length of the body (RFC 9112 section 6.2). treq sends the
requests for other URLs. Twisted's parser reads other answers, on the same connection, from their
first byte on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from twisted.web._newclient import (
    Request,
    RequestNotSent,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IResponse

from ncps.aio.streams import BodyReader
from ncps.upstream.connection import BoundedConnection

BORROWED: Final = (
    "twisted.internet.abstract.FileDescriptor._tempDataBuffer",
    "twisted.web._newclient.HTTP11ClientProtocol._state",
)
"""Private names of the library that this module uses; see `tests/structure/test_borrowed.py`."""

_END: Final = b"\r\n\r\n"
_NO_BODY: Final = frozenset({204, 304})


class AnswerHead(Protocol):
    """The head of an answer."""

    @property
    def status(self) -> int:
        """The status code."""

    @property
    def encoding(self) -> str:
        """Its Content-Encoding as it was sent; several headers are joined by commas."""

    @property
    def length(self) -> int | None:
        """Its Content-Length, also for HEAD; None if unknown."""

    def values(self, name: bytes) -> list[bytes]:
        """Return all values of a header, by its name in lower case."""

    def deliver(self, reader: BodyReader) -> None:
        """Give the body to a reader. Call this once, in the turn in which the head arrives."""


@frozen
class ParsedHead:
    """The head of an answer that is parsed in one pass; see `AnswerHead`."""

    status: int
    fields: Mapping[bytes, list[bytes]]
    length: int | None
    deliver: Callable[[BodyReader], None]

    @property
    def encoding(self) -> str:
        return _joined(self.fields.get(b"content-encoding", []))

    def values(self, name: bytes) -> list[bytes]:
        return self.fields.get(name, [])


class TwistedHead:
    """The head of an answer that Twisted has parsed; see `AnswerHead`.

    :param encoding: the Content-Encoding; None for that of the response.
    """

    def __init__(self, response: Any, *, is_head: bool, encoding: str | None = None) -> None:
        self._response: IResponse = response
        self.status = int(response.code)
        values = self.values(b"content-encoding")
        self.encoding = _joined(values) if encoding is None else encoding
        self.length = _length(response, is_head=is_head)

    def values(self, name: bytes) -> list[bytes]:
        found: list[bytes] = self._response.headers.getRawHeaders(name, [])
        return found

    def deliver(self, reader: BodyReader) -> None:
        self._response.deliverBody(reader)


def _joined(values: list[bytes]) -> str:
    return ", ".join(value.decode("latin-1").strip() for value in values)


def _length(response: Any, *, is_head: bool) -> int | None:
    """Return Content-Length, which Twisted removes from the headers except for HEAD."""
    if not is_head:
        return None if response.length is UNKNOWN_LENGTH else int(response.length)
    text: bytes = response.headers.getRawHeaders(b"content-length", [b""])[-1].strip()
    return int(text) if text.isdigit() and len(text) < 20 else None


def parsed(head: bytes) -> tuple[int, dict[bytes, list[bytes]]] | None:
    """Parse a head without its empty line; return None if it is unusual.

    Unusual are another HTTP version, an interim answer, a status without a body, a continued line,
    an incomplete line end, a body without a length, and a connection that will close.
    """
    first, *lines = head.split(b"\r\n")
    status = first[9:12]
    if first[:9] != b"HTTP/1.1 " or not status.isdigit() or first[12:13] not in {b"", b" "}:
        return None
    if int(status) < 200 or int(status) in _NO_BODY:
        return None
    if not head.count(b"\n") == head.count(b"\r") == len(lines):
        return None
    fields: dict[bytes, list[bytes]] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or name.strip() != name or not name:
            return None
        fields.setdefault(name.lower(), []).append(value.strip())
    length = fields.get(b"content-length", [])
    is_sized = len(length) == 1 and length[0].isdigit() and len(length[0]) < 20
    is_kept = [value.lower() for value in fields.get(b"connection", [])] in ([], [b"keep-alive"])
    if not is_sized or not is_kept or b"transfer-encoding" in fields or b"upgrade" in fields:
        return None
    return int(status), fields


class PlainConnection(BoundedConnection):
    """A connection for plain requests and for those of Twisted's agent.

    One request runs at a time. The connection is kept for the next one after the whole body.
    """

    def __init__(self, returned: Callable[[Any], object], head_size: int) -> None:
        super().__init__(returned, head_size)
        self._returned = returned
        self._asking: Deferred[AnswerHead] | None = None
        self._handed: Deferred[Any] | None = None
        self._method = b""
        self._unread: ParsedHead | None = None
        self._reader: BodyReader | None = None
        self._body = b""
        self._left = 0

    def ask(self, method: bytes, text: bytes) -> Deferred[AnswerHead]:
        """Send a request; the result is the head of its answer.

        Fails with `RequestNotSent`, `RequestTransmissionFailed`, `ResponseNeverReceived` or
        `ResponseFailed`, like requests of Twisted. Cancelling closes the connection.

        :param text: the whole head of the request.
        """
        if self._state != "QUIESCENT":
            return fail(RequestNotSent())
        self._state = "WAITING"
        self._method = method
        asking = self._asking = Deferred(self._cancel_request)
        _send(self.transport, text)
        return asking

    def _cancel_request(self, _: object) -> None:
        if self._handed is not None:
            self._handed.cancel()
            return
        self._asking = None
        self.abort_now()

    def dataReceived(self, data: bytes) -> None:
        """See `IProtocol`."""
        if self._reader is not None:
            self._feed(self._reader, data)
        elif self._asking is not None:
            self._begin(self._asking, data)
        elif self._unread is None:
            super().dataReceived(data)

    def _begin(self, asking: Deferred[AnswerHead], data: bytes) -> None:
        """Handle the first bytes of an answer."""
        self._asking = None
        end = data.find(_END)
        found = parsed(data[:end]) if 0 <= end <= self.head_size else None
        if found is None:
            self._hand_over(asking, data)
            return
        status, fields = found
        length = int(fields[b"content-length"][0])
        self._left = 0 if self._method == b"HEAD" else length
        self._body = data[end + len(_END) :]
        head = self._unread = ParsedHead(status, fields, length, self._deliver)
        asking.callback(head)
        if self._unread is head:  # no reader took the body
            self.abort_now()

    def _deliver(self, reader: BodyReader) -> None:
        reader.makeConnection(_Source(self.transport))
        body, self._body = self._body, b""
        self._unread, self._reader = None, reader
        self._feed(reader, body)

    def _feed(self, reader: BodyReader, data: bytes) -> None:
        """Pass on bytes of the body; free the connection before the reader gets the last one."""
        if reader.has_ended:
            return  # the reader has closed the body, and the connection with it
        rest = len(data) - self._left
        if rest < 0:
            self._left -= len(data)
            reader.dataReceived(data)
            return
        piece, self._left, self._reader = data[: self._left], 0, None
        self._end(is_kept=not rest)
        reader.complete(piece)

    def _end(self, *, is_kept: bool) -> None:
        """End the answer; keep the connection unless bytes follow the answer."""
        if not is_kept:
            self.abort_now()
            return
        self._state = "QUIESCENT"
        transport: Any = self.transport
        transport.resumeProducing()
        self._returned(self)

    def _hand_over(self, asking: Deferred[AnswerHead], data: bytes) -> None:
        """Let Twisted read the answer, as if it had sent the request."""
        is_head = self._method == b"HEAD"
        self._state = "QUIESCENT"
        response = self._handed = self.request(_Sent(self._method))
        response.addBoth(self._handed_back, asking, is_head=is_head)
        super().dataReceived(data)

    def _handed_back(self, result: Any, asking: Deferred[AnswerHead], *, is_head: bool) -> None:
        self._handed = None
        if asking.called:  # cancelled
            return
        if isinstance(result, Failure):
            asking.errback(result)
        else:
            asking.callback(TwistedHead(result, is_head=is_head))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See `IProtocol`."""
        asking, self._asking = self._asking, None
        reader, self._reader = self._reader, None
        super().connectionLost(reason)
        if asking is not None:
            asking.errback(ResponseNeverReceived([reason]))
        if reader is not None:
            reader.connectionLost(Failure(ResponseFailed([reason])))


def _send(transport: Any, data: bytes) -> None:
    """Write directly to the socket if the buffer of the connection is empty.

    Only for a bare TCP connection: the same method of a TLS transport belongs to the socket below
    it, which would send the bytes unencrypted.
    """
    sent: object = 0
    is_bare = isinstance(transport, Connection)
    if is_bare and not transport.dataBuffer and not transport._tempDataBuffer:
        sent = transport.writeSomeData(data)
    if sent != len(data):
        transport.write(data[sent:] if isinstance(sent, int) else data)  # this gets the error again


class _Sent(Request):
    """A request that was sent already."""

    def __init__(self, method: bytes) -> None:
        super().__init__(method, b"/", Headers({b"host": [b""]}), None, persistent=True)

    def writeTo(self, transport: Any) -> Deferred[None]:
        """See `Request`."""
        return succeed(None)


class _Source:
    """The producer of a body, in the form in which Twisted gives it to readers."""

    def __init__(self, transport: Any) -> None:
        self._producer = transport
        self.pauseProducing = transport.pauseProducing
        self.resumeProducing = transport.resumeProducing
