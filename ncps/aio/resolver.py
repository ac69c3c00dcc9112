"""A resolver of host names with its own threads: a look-up that hangs delays no other look-up.

Twisted looks names up in the reactor's ten threads, once for each connection, even for numeric
addresses. If a name server does not answer, each look-up occupies its thread for half a minute, and
ten of them stop every connection of the process. Here each upstream has a `Resolver`, and one more
serves everything else. A numeric address needs no thread. All callers that ask for one name share
one look-up, and its result is kept for a while. Names from redirects or from URLs in narinfos wait
for a few threads; the upstream's own name never waits.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection
from ipaddress import ip_address
from math import inf
from typing import Any, Final

from attrs import Factory, define
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import (
    IHostnameResolver,
    IHostResolution,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ncps.aio.bulkhead import Bulkhead
from ncps.aio.reasons import reason_of
from ncps.aio.threads import Threads
from ncps.aio.waiting import Future, within
from ncps.errors import Unavailable

FRESH_S: Final = 5.0
"""Seconds for which addresses are used without another look-up."""
STALE_S: Final = 3600.0
"""Seconds for which addresses are used while no name server answers."""
LATE_S: Final = 1.0
"""Seconds to wait for a look-up if older addresses are known."""
RENEWED_S: Final = 60.0
"""Seconds after which a second look-up begins beside one that hangs."""
MAX_PER_NAME: Final = 2
MAX_OTHERS: Final = 4
"""Names other than its own that a resolver looks up at the same time, at most."""
QUEUE: Final = 64
"""Such names that may wait, each for as long as for an answer."""
MAX_NAMES: Final = 256
"""Names that a resolver remembers."""

_NONE = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


class NameTrouble(DNSLookupError):
    """A name was not found, or could not be looked up; the text says why.

    :ivar timed_out: whether no name server answered in time.
    :ivar is_ours: whether the reason is a limit of this process.
    """

    def __init__(self, message: str, *, timed_out: bool = False, is_ours: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out
        self.is_ours = is_ours

    def __str__(self) -> str:
        return str(self.args[0])


def look_up_blocking(host: str) -> tuple[str, ...]:
    """Ask the system for the numeric addresses of a name, best first.

    Raises OSError if it finds none.
    """
    found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


@define
class _Name:
    """The known facts of one name.

    :ivar known_at: when `addresses` were found.
    :ivar trouble: why the last look-up failed; None if it did not.
    :ivar running: look-ups under way.
    :ivar begun_at: when the last look-up began.
    :ivar is_asked: whether the last look-up has a thread.
    :ivar done: set when the last look-up ends.
    """

    addresses: tuple[str, ...] = ()
    known_at: float = -inf
    trouble: NameTrouble | None = None
    running: int = 0
    begun_at: float = -inf
    is_asked: bool = False
    done: Future[None] = Factory(Future)


@implementer(IHostResolution)
class _Resolution:
    """A look-up as Twisted sees it.

    :ivar answering: fires when the receiver has all addresses.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.answering: Deferred[None] | None = None

    def cancel(self) -> None:
        """See `IHostResolution`: stop answering this receiver; the look-up itself continues."""
        if self.answering is not None:
            self.answering.cancel()


@implementer(IHostnameResolver)
class Resolver:
    """A resolver that asks the system in threads, and keeps the addresses for a while.

    :param threads: run the look-ups; for each of `own`, and for `MAX_OTHERS` more names, it needs
        `MAX_PER_NAME` threads.
    :param own: names that never wait for a thread.
    :param patience_s: seconds to wait for a look-up if no addresses are known.
    :param look_up: asks the system.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        threads: Threads,
        *,
        own: Collection[str] = (),
        patience_s: float,
        look_up: Callable[[str], tuple[str, ...]] = look_up_blocking,
    ) -> None:
        self._clock = clock
        self._threads = threads
        self._own = frozenset(name.lower() for name in own)
        self._patience_s = patience_s
        self._look_up = look_up
        self._names: dict[str, _Name] = {}
        self._turns = Bulkhead(
            clock,
            "a thread to look up names in",
            size=MAX_OTHERS,
            queue=QUEUE,
            patience_s=patience_s,
        )

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Any = None,
        transportSemantics: Any = "TCP",
    ) -> IHostResolution:
        """See `IHostnameResolver`. If there was no address, `why` says the reason."""
        resolution = _Resolution(hostName)

        async def answer() -> None:
            try:
                addresses = await self.find(hostName)
            except NameTrouble:
                addresses = ()
            for text in addresses:
                kind = IPv6Address if ":" in text else IPv4Address
                if addressTypes is None or kind in addressTypes:
                    resolutionReceiver.addressResolved(kind(transportSemantics, text, portNumber))
            resolutionReceiver.resolutionComplete()

        resolutionReceiver.resolutionBegan(resolution)
        resolution.answering = Deferred.fromCoroutine(answer())
        resolution.answering.addErrback(self._not_answered)
        return resolution

    def _not_answered(self, failure: Failure) -> None:
        if failure.check(CancelledError) is None:
            self._log.failure("a look-up", failure)

    def why(self, host: str) -> NameTrouble | None:
        """Return the error of the last look-up of a name; None if it found an address."""
        name = self._names.get(host.lower())
        return None if name is None else name.trouble

    async def find(self, host: str) -> tuple[str, ...]:
        """Return the numeric addresses of a name. Raises NameTrouble if there is none."""
        if _is_address(host):
            return (host,)
        key = host.lower()
        now = self._clock.seconds()
        name = self._names.get(key, _UNKNOWN)
        if now - name.known_at < FRESH_S:
            return name.addresses
        usable = name.addresses if now - name.known_at < STALE_S else ()
        if not name.running or (name.running < MAX_PER_NAME and now - name.begun_at >= RENEWED_S):
            name = self._begin(key)
        until = name.begun_at + (LATE_S if usable else self._patience_s)
        try:
            await within(self._clock, max(0.0, until - now), name.done.wait())
        except DeferredTimeout:
            if not usable:
                name.trouble = self._late(key, name)
        if name.trouble is None:
            return name.addresses
        if usable and name.addresses:
            return usable
        raise name.trouble.with_traceback(None)

    def _late(self, key: str, name: _Name) -> NameTrouble:
        """Return an error that says what delays a look-up."""
        if not name.is_asked:
            return NameTrouble(f"{key} was not looked up: other look-ups do not end", is_ours=True)
        text = f"no name server gave the address of {key} within {self._patience_s:g} s"
        return NameTrouble(text, timed_out=True)

    def _begin(self, key: str) -> _Name:
        """Begin a look-up, and make room in memory for its name."""
        name = self._names.pop(key, None)
        if name is None and len(self._names) >= MAX_NAMES:
            del self._names[next(key for key, name in self._names.items() if not name.running)]
        name = self._names[key] = name or _Name()
        name.running += 1
        name.begun_at = self._clock.seconds()
        name.is_asked = False
        name.done = Future()
        # It ends with its thread, which belongs to the owner of the pool.
        looking = Deferred.fromCoroutine(self._ask(key, name))
        looking.addCallbacks(
            self._found, self._failed, callbackArgs=(name,), errbackArgs=(key, name)
        )
        looking.addBoth(self._ended, name, name.done)
        return name

    async def _ask(self, key: str, name: _Name) -> tuple[str, ...]:
        """Ask the system in a thread; a name that is not one of `own` waits for its turn."""
        if key in self._own:
            name.is_asked = True
            return await self._threads.run(self._look_up, key)
        async with self._turns:
            name.is_asked = True
            return await self._threads.run(self._look_up, key)

    def _found(self, addresses: tuple[str, ...], name: _Name) -> None:
        name.addresses, name.known_at, name.trouble = addresses, self._clock.seconds(), None

    def _failed(self, failure: Failure, key: str, name: _Name) -> None:
        error = failure.value
        if isinstance(error, socket.gaierror):
            if error.errno in _NONE:
                name.addresses, name.known_at = (), -inf
            name.trouble = NameTrouble(f"{key} was not found: {error.strerror}")
        elif isinstance(error, Unavailable):
            name.trouble = NameTrouble(f"{key} was not looked up: {error}", is_ours=True)
        else:  # UnicodeError and OSError for texts that cannot be names
            name.trouble = NameTrouble(f"{key} was not found: {reason_of(error)}")

    def _ended(self, _: object, name: _Name, done: Future[None]) -> None:
        name.running -= 1
        done.succeed(None)


_UNKNOWN: Final = _Name()


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


@implementer(IStreamClientEndpoint)
class NamedEndpoint:
    """An endpoint like `HostnameEndpoint` whose error says why a name was not found.

    :param timeout_s: for each attempt to connect; the resolver has a deadline of its own.
    """

    def __init__(self, reactor: Any, host: str, port: int, timeout_s: float) -> None:
        self._reactor = reactor
        self._host = host
        self._endpoint = HostnameEndpoint(reactor, host, port, timeout=timeout_s)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See `IStreamClientEndpoint`. Fails with NameTrouble if the name was not found."""
        connecting: Deferred[IProtocol] = self._endpoint.connect(protocolFactory)
        return connecting.addErrback(self._explain)

    def _explain(self, failure: Failure) -> Failure:
        resolver = self._reactor.nameResolver
        if failure.check(DNSLookupError) is None or not isinstance(resolver, Resolver):
            return failure
        return Failure(resolver.why(self._host) or failure.value)
