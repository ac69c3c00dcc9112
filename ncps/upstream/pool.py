"""Pool: keeps connections to upstreams for later requests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IAddress, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from twisted.web._newclient import RequestNotSent, ResponseNeverReceived
from twisted.web.client import HTTPConnectionPool

from ncps.upstream.plain import AnswerHead, PlainConnection

BORROWED: Final = (
    "twisted.web.client.HTTPConnectionPool._connections",
    "twisted.web.client.HTTPConnectionPool._factory",
    "twisted.web.client.HTTPConnectionPool._newConnection",
    "twisted.web.client.HTTPConnectionPool._timeouts",
)
"""Private names of the library that this module uses; see `tests/structure/test_borrowed.py`."""

Key = tuple[bytes, bytes, int]
"""Scheme, host and port: connections of one key are interchangeable."""


class _Connections(Factory):
    """Makes the connections of a pool, like Twisted's own factory.

    :param returned: called with each connection that may be used again.
    :param name: name of the endpoint, for `repr`.
    """

    def __init__(self, head_size: int, returned: Callable[[Any], object], name: str) -> None:
        self._head_size = head_size
        self._returned = returned
        self._name = name

    def __repr__(self) -> str:
        return f"_Connections({self._name})"

    def buildProtocol(self, addr: IAddress | None) -> PlainConnection:
        """See `IProtocolFactory`."""
        return PlainConnection(self._returned, self._head_size)


class Pool(HTTPConnectionPool):
    """A pool for plain requests and for those of agents.

    :param kept: idle connections to each origin, at most.
    """

    _connections: dict[Key, list[PlainConnection]]

    def __init__(self, reactor: Any, kept: int, head_size: int) -> None:
        super().__init__(reactor, persistent=True)
        self.maxPersistentPerHost = kept
        self.retryAutomatically = True
        self._factory = cast("Any", partial(_Connections, head_size))

    def ask(
        self, key: Key, endpoint: IStreamClientEndpoint, method: bytes, text: bytes
    ) -> Deferred[AnswerHead]:
        """Send a request over an idle connection, or over a new one.

        If an idle connection breaks before a byte of the answer, the request is sent once more,
        over a new one. Fails like `PlainConnection.ask` and like the endpoint.
        """

        def anew(_: object = None) -> Deferred[AnswerHead]:
            connecting: Deferred[Any] = self._newConnection(key, endpoint)
            return connecting.addCallback(lambda connection: connection.ask(method, text))

        def failed(failure: Failure) -> Deferred[AnswerHead]:
            is_stale = failure.check(RequestNotSent, ResponseNeverReceived) is not None
            return anew() if is_stale else fail(failure)

        idle = self._take(key)
        return anew() if idle is None else idle.ask(method, text).addErrback(failed)

    def _take(self, key: Key) -> PlainConnection | None:
        """Remove an idle connection from the pool and return it; None if there is none."""
        idle = self._connections.get(key)
        while idle:
            connection = idle.pop(0)
            self._timeouts.pop(connection).cancel()
            if connection.state == "QUIESCENT":
                return connection
        return None
