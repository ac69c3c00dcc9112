"""One connection to one Redis server; the only module that imports txredisapi.

It uses only the protocol of txredisapi. The pools of txredisapi queue calls without limit while the
server is away, and reconnect on the global reactor with their own delays; here `ncps.locks.keeper`
reconnects.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from ncps.aio.reasons import reason_of
from ncps.aio.resolver import NamedEndpoint
from ncps.aio.tls import WrongCertificate
from ncps.aio.waiting import within
from ncps.errors import NcpsError, Refused, Unavailable

TLS = Callable[[str], IOpenSSLClientConnectionCreator]
"""Returns TLS options that verify that the server is the host with this name."""

_NOT_ALLOWED = ("WRONGPASS", "NOAUTH", "NOPERM", "Client sent AUTH", "AUTH <password> called")
_NO_SUCH_DB = ("DB index", "invalid DB")
_CLUSTER = ("MOVED", "CROSSSLOT", "CLUSTERDOWN", "SELECT is not allowed in cluster")
_NOT_NOW = ("MASTERDOWN", "LOADING")
_TAKES_NOTHING = re.compile(r"\b(?:READONLY|OOM|MISCONF|NOREPLICAS)\b.*")
"""The server refuses writes: it is a replica, or lacks memory, a disk, or replicas.

It may stand anywhere in the text, because Redis 5 and 6 wrap the errors of a script.
"""


class Lost(Unavailable):
    """The connection is unusable; it is unknown whether Redis ran the command."""


class _Factory(Factory):
    """A factory of one protocol, with the attributes that txredisapi reads."""

    noisy = False
    isLazy = False

    def __init__(self, is_subscriber: bool) -> None:
        self._is_subscriber = is_subscriber

    def buildProtocol(self, _address: object) -> Any:
        protocol = _protocol(self._is_subscriber)(charset=None, convertNumbers=False)
        protocol.factory = self
        return protocol


@cache
def _protocol(is_subscriber: bool) -> Any:
    import txredisapi  # noqa: PLC0415 - it installs a reactor when it is imported

    kind: Any = txredisapi.SubscriberProtocol if is_subscriber else txredisapi.RedisProtocol

    class Protocol(kind):  # type: ignore[misc]
        """A protocol that keeps the reason of a loss, and reads received bytes in a loop."""

        reason: BaseException | None = None
        _rest = b""

        def connectionLost(self, reason: Failure) -> None:
            self.reason = reason.value
            super().connectionLost(reason)

        def dataReceived(self, data: bytes, unpause: bool = False) -> None:
            self._rest = data
            while self._rest:
                data, self._rest = self._rest, b""
                super().dataReceived(data)

        def setLineMode(self, extra: bytes = b"") -> None:
            self.line_mode = 1
            self._rest = extra

    return Protocol


async def connect(
    reactor: Any,
    address: tuple[str, int],
    *,
    tls: TLS | None,
    timeout_s: float,
    is_subscriber: bool = False,
) -> RedisConnection:
    """Connect. Raises Unavailable if that fails.

    With TLS only the first answer shows whether the server is the right one.

    :param is_subscriber: whether the connection is for SUBSCRIBE.
    """
    host, port = address
    endpoint: Any = NamedEndpoint(reactor, host, port, timeout_s)
    if tls is not None:
        endpoint = wrapClientTLS(tls(host), endpoint)
    name = f"{host}:{port}"
    attempt = _cancellable(endpoint.connect(_Factory(is_subscriber)))
    try:
        protocol = await within(reactor, timeout_s, attempt, silence(name, timeout_s))
    except (ConnectError, ConnectionClosed, DNSLookupError, OSError) as error:
        raise Unavailable(f"{name}: {reason_of(error)}") from error
    return RedisConnection(reactor, name, protocol, timeout_s)


def _cancellable(attempt: Deferred[Any]) -> Deferred[Any]:
    """Make a cancelled attempt end in CancelledError.

    A HostnameEndpoint reports a failed look-up instead.
    """

    def cancel(result: Deferred[Any]) -> None:
        result.errback(CancelledError())
        attempt.cancel()

    result: Deferred[Any] = Deferred(cancel)

    def connected(protocol: Any) -> None:
        if result.called:
            protocol.transport.abortConnection()
        else:
            result.callback(protocol)

    def failed(failure: Failure) -> None:
        if not result.called:
            result.errback(failure)

    attempt.addCallbacks(connected, failed)
    return result


def silence(name: str, seconds: float) -> str:
    """Return the message that a server did not answer in time."""
    return f"{name} does not answer within {seconds:g}s"


class RedisConnection:
    """One connection, made by `connect`; commands are pipelined.

    :ivar ended: fires with the reason when the connection has ended.
    """

    def __init__(self, reactor: Any, name: str, protocol: Any, timeout_s: float) -> None:
        self.name = name
        self.ended: Deferred[NcpsError] = Deferred()
        self._reactor = reactor
        self._protocol = protocol
        self._timeout_s = timeout_s
        self._is_dead = False
        gone: Deferred[object] = protocol.whenDisconnected()
        gone.addCallback(self._gone)
        if protocol.reason is not None and not gone.called:
            gone.callback(None)

    @property
    def is_dead(self) -> bool:
        """Whether the connection has ended or is about to end."""
        return self._is_dead

    def _gone(self, _: object) -> None:
        self._is_dead = True
        if not self.ended.called:
            self.ended.callback(Lost(f"{self.name}: {reason_of(self._protocol.reason)}"))

    def end(self, _reason: NcpsError | None = None) -> None:
        """End the connection now; idempotent."""
        self._is_dead = True
        transport = self._protocol.transport
        if transport is not None:
            transport.abortConnection()

    async def close(self) -> None:
        """End the connection and wait until the transport has gone; idempotent."""
        self.end()
        if self._protocol.reason is None:
            await self._protocol.whenDisconnected()

    def listen(self, received: Callable[[bytes, bytes], None]) -> None:
        """Call `received` with the channel and text of each message; before the first SUBSCRIBE."""
        self._protocol.messageReceived = lambda _pattern, channel, text: received(channel, text)

    async def command(self, *words: bytes | str | int) -> Any:
        """Send a command; return its answer.

        The connection ends if the server does not answer in time. Raises Lost if the connection is
        unusable, Refused if the configuration cannot work, Unavailable for another failure.
        """
        return await self._answered(lambda: self._protocol.execute_command(*words))

    async def script(
        self, script: str, keys: list[bytes | str], words: list[bytes | str | int]
    ) -> Any:
        """Run a Lua script; return its answer. Raises the errors of `command`."""
        return await self._answered(lambda: self._protocol.eval(script, keys, words))

    async def _answered(self, send: Callable[[], Deferred[Any]]) -> Any:
        import txredisapi  # noqa: PLC0415 - see above

        try:
            late = silence(self.name, self._timeout_s)
            return await within(self._reactor, self._timeout_s, send(), late)
        except Unavailable:
            self.end()  # the answers to later commands would be as late
            raise
        except txredisapi.ResponseError as error:
            raise self._translated(str(error).strip().removeprefix("ERR ")) from error
        except txredisapi.RedisError as error:
            raise self._lost(error) from error

    def _translated(self, text: str) -> Unavailable | Refused:
        """Return the error for a message of Redis, which never contains a password."""
        text = text[:200]
        if text.startswith(_NOT_ALLOWED):
            return Refused(
                f"{self.name} refuses the login: {text.rstrip('.')}; check the user and the"
                " password (cache-redis-username, cache-redis-password or its file; the same for"
                " all servers; those of Sentinels, too), and what the ACL allows"
            )
        if text.startswith(_NO_SUCH_DB):
            return Refused(f"{self.name} has no such database: {text}")
        if text.startswith(_CLUSTER):
            return Refused(f"{self.name} is part of a Redis Cluster: name independent servers")
        if refusal := _TAKES_NOTHING.search(text):
            return Lost(f"{self.name} refuses writes: {refusal[0].rstrip('.')}")
        if text.startswith(_NOT_NOW):
            return Lost(f"{self.name}: {text}")
        return Unavailable(f"{self.name}: {text}")

    def _lost(self, error: Exception) -> Unavailable | Refused:
        reason = self._protocol.reason
        if isinstance(reason, WrongCertificate):
            return Refused(f"{self.name}: {reason}")
        return Lost(f"{self.name}: {reason_of(reason or error)}")
