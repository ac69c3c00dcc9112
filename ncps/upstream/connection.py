"""Connections to an upstream, with a bound on the bytes of an answer's head.

Twisted bounds a line of a head, but not the number of lines, so that a server could send headers
until memory is full. This module counts each byte from the request up to the empty line before the
body, also those of interim answers (1xx).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web._newclient import HEADER, STATUS, HTTP11ClientProtocol


class HeadTooLarge(Exception):
    """The head of an answer did not end within its limit; the connection was aborted."""


BORROWED: Final = (
    "twisted.web._newclient",
    "twisted.web._newclient.HTTP11ClientProtocol._disconnectParser",
    "twisted.web._newclient.HTTP11ClientProtocol._finishResponse",
    "twisted.web._newclient.HTTP11ClientProtocol._parser",
)
"""Private names of the library that this module uses; see `tests/structure/test_borrowed.py`."""


class BoundedConnection(HTTP11ClientProtocol):
    """One connection.

    Twisted's parser of an answer is private; `tests/unit/upstream/test_connection.py` fails if a
    release changes it.

    :param head_size: bytes of a head, at most.
    """

    def __init__(self, returned: Callable[[Any], object], head_size: int) -> None:
        super().__init__(returned)
        self.head_size = head_size
        self._head_of: Any = None
        self._head_length = 0

    def dataReceived(self, data: bytes) -> None:
        """See `IProtocol`."""
        parser: Any = self._parser
        if parser is None:
            self.abort_now()  # there is no request for these bytes
            return
        if parser.state not in {STATUS, HEADER}:
            super().dataReceived(data)
            return
        if parser is not self._head_of:
            self._head_of, self._head_length = parser, 0
        first = data[: self.head_size - self._head_length]
        rest = data[len(first) :]
        self._head_length += len(first)
        super().dataReceived(first)
        still: Any = self._parser
        if still is not parser or not rest:
            return  # the bytes after a complete answer belong to none
        if parser.state in {STATUS, HEADER}:
            self._refuse()
        else:
            super().dataReceived(rest)

    def _finishResponse(self, rest: bytes) -> None:
        """Do as Twisted does, but close a connection if bytes follow the answer."""
        super()._finishResponse(rest)
        if rest:  # a request that was sent on it already is sent again, on another one
            self.abort_now()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See `IProtocol`."""
        self._head_of = None
        super().connectionLost(reason)

    def abort_now(self) -> None:
        """Abort, because a normal end would wait, over TLS, until the peer has sent everything."""
        transport: Any = self.transport
        transport.abortConnection()

    def _refuse(self) -> None:
        self.abort_now()
        error = HeadTooLarge(f"the head of the answer is longer than {self.head_size} bytes")
        self._disconnectParser(Failure(error))
