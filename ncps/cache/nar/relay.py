"""Relay: one fetch for all processes that share a store (P4).

Whoever holds the lease of a NAR fetches it from the upstreams. The others follow the holder's
growing file, at the address that it leases under, into spools of their own, which their clients
read. When the holder is gone, one of the others gets the lease and goes on from the byte it has.

    lease free? --yes--> ours; stored meanwhile? --no--> upstreams, from the byte we have
        | no                          +----------yes--> the store, from the byte we have
        v
    its holder can be reached? --yes--> its file, from the byte we have --(broken off)--> again
        | no
        v
    wait for the lease a while --> again
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Container,
    Coroutine,
)
from contextlib import AbstractAsyncContextManager, aclosing
from functools import partial
from typing import Any, Final, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime

from ncps.aio.body import PassedBody
from ncps.ask.pace import followed
from ncps.cache.cluster import Cluster, lease_of
from ncps.cache.nar.sources import Source, Sources, Supply
from ncps.errors import Corrupt, NcpsError, NotFound, Unavailable
from ncps.nix.narurl import NarKey
from ncps.ports import Body, Catalog, Lease, NarRecord, UpstreamBody

T = TypeVar("T")

PEER: Final = "peer"
"""Name of all other processes of this cache, among the names of upstreams."""

TURN_S: Final = 1.0
"""How long the lease is waited for before its holder is asked once more."""

SETTLE_S: Final = 60.0
"""How long the holder may take to publish a file whose last byte it has let go."""


class AlreadyStored(Unavailable):
    """While the lease was waited for, somebody else stored the NAR."""


class Relay(Supply):
    """The supply of one download; see the module. Released by whoever made it.

    :param sources: what is asked while the lease is ours.
    :param open_stored: opens the bytes of a stored NAR from an offset on.
    """

    def __init__(
        self,
        *,
        clock: IReactorTime,
        cluster: Cluster,
        catalog: Catalog,
        key: NarKey,
        sources: Sources,
        open_stored: Callable[[NarRecord, int], Awaitable[Body]],
    ) -> None:
        self.failures = sources.failures
        self._clock = clock
        self._cluster = cluster
        self._catalog = catalog
        self._key = key
        self._sources = sources
        self._open_stored = open_stored
        self._lease: Lease | None = None
        self._hold: AbstractAsyncContextManager[Lease] | None = None
        self._is_checked = False
        self._relayed = 0
        self._until: float | None = None

    @property
    def _name(self) -> str:
        return lease_of(self._key)

    async def each(
        self, shunned: Container[str] = (), suspects: Container[str] = ()
    ) -> AsyncGenerator[Source, None]:
        """One round, which ends when there is nobody left to ask. AlreadyStored.

        All rounds together wait for `Cluster.patience_s` seconds after the last byte of a peer.
        """
        if self._until is None:
            self._until = self._clock.seconds() + self._cluster.patience_s
        while await self._has_lease() is False:
            before = self._relayed
            peer = None if PEER in shunned or not self._left_s else await self._peer()
            if peer is not None:
                yield peer
            if self._relayed > before:
                self._until = self._clock.seconds() + self._cluster.patience_s
            elif not self._left_s:
                why = self.failures.get(PEER) or "it told no address"
                self.failures[PEER] = Unavailable(f"waited for in vain: {why}", timed_out=True)
                return
            await self._wait(min(TURN_S, self._left_s))
        if self._lease is not None:
            async with aclosing(self._ours(shunned, suspects)) as sources:
                async for source in sources:
                    yield source

    @property
    def _left_s(self) -> float:
        """Seconds for which the others are still waited for; 0: it is over."""
        assert self._until is not None
        return max(0.0, self._until - self._clock.seconds())

    async def _in_time(self, asking: Coroutine[Any, Any, T]) -> T:
        """Wait for another process, no longer than for the others in all. Raises Unavailable."""
        answer, left_s = Deferred.fromCoroutine(asking), self._left_s
        try:
            return await answer.addTimeout(left_s, self._clock)
        except DeferredTimeout:
            raise Unavailable(f"no answer within {left_s:.3g} s", timed_out=True) from None

    async def _has_lease(self) -> bool | None:
        """Whether the lease is ours now; None: cannot tell."""
        if self._lease is None:
            try:
                self._lease = await self._cluster.leases.try_hold(self._name)
            except Unavailable as error:
                if not self._relayed:
                    raise  # nobody waits for more than a status yet
                self.failures["leases"] = error
                return None
        return self._lease is not None

    async def _ours(
        self, shunned: Container[str], suspects: Container[str]
    ) -> AsyncGenerator[Source, None]:
        stored = await self._stored()
        if stored is not None:
            if not self._relayed:
                raise AlreadyStored("stored meanwhile")
            opened = partial(self._follow_stored, stored)
            yield _OwnSource("store", str(stored.file_hash), opened)
        async with aclosing(self._sources.each(shunned, suspects)) as sources:
            async for source in sources:
                yield source

    async def _stored(self) -> NarRecord | None:
        """The NAR's record, if a former holder of the lease has stored it. Unavailable."""
        if self._is_checked:
            return None
        nar = await self._catalog.nar(self._key)
        self._is_checked = nar is None or not nar.is_stored
        return None if self._is_checked else nar

    async def _peer(self) -> Source | None:
        """The holder of the lease, if it can be reached and has the file on its way."""
        try:
            address = await self._cluster.leases.holder(self._name)
            if not address or address == self._cluster.address:
                return None
            file = await self._in_time(self._cluster.peers.find_nar(address, self._key))
        except (NotFound, Unavailable, Corrupt) as error:
            self.failures[PEER] = Unavailable(f"the process that fetches it: {error}")
            return None
        return _OwnSource(PEER, file, partial(self._follow, address))

    async def _follow_stored(self, nar: NarRecord, offset: int) -> UpstreamBody:
        body = await self._open_stored(nar, offset)
        return PassedBody(aiter(body), body.close, start=offset, total=nar.file_size)

    async def _follow(self, address: str, offset: int) -> UpstreamBody:
        """Open what another process is fetching; it is left when it is slow and its lease free."""
        opening = self._cluster.peers.open_nar(address, self._key, offset=offset)
        body, pace = await self._in_time(opening), self._cluster.pace
        return followed(body, self._clock, pace, self._took, self._overtake)

    async def _overtake(self) -> bool:
        """Take the lease if it is free, though its former holder goes on sending."""
        if self._lease is None:
            try:
                self._lease = await self._cluster.leases.try_hold(self._name)
            except Unavailable:
                return False
        return self._lease is not None

    def _took(self, count: int) -> None:
        self._relayed += count

    async def _wait(self, seconds: float) -> None:
        """Wait for the lease for a while."""
        hold = self._cluster.leases.hold(self._name)
        waiting = Deferred.fromCoroutine(hold.__aenter__())
        try:
            self._lease = await waiting.addTimeout(seconds, self._clock)
        except DeferredTimeout:
            return
        except Unavailable as error:
            self.failures["leases"] = error
            return
        self._hold = hold

    async def open(
        self, source: Source, offset: int, *, allow_encoding: bool
    ) -> tuple[Source, UpstreamBody]:
        """See `Supply`; only upstreams stand in for each other."""
        return await self._sources.open(source, offset, allow_encoding=allow_encoding)

    def failed(self, source: Source, error: NcpsError) -> None:
        """See `Supply`."""
        self._sources.failed(source, error)

    async def contradicts(self, size: int) -> bool:
        """See `Supply`."""
        return await self._sources.contradicts(size)

    def allow_replacing(self) -> None:
        """See `Supply`."""
        self._sources.allow_replacing()

    def lied(self, reason: str) -> None:
        """See `Supply`."""
        self._sources.lied(reason)

    async def settle(self) -> Lease | None:
        """After the last byte: have the lease, to publish. Unavailable: it cannot be had.

        None: there is no need, the NAR is stored already.
        """
        if self._lease is None or self._lease.is_lost:
            await self.release()
            await self._wait(SETTLE_S)
        if self._lease is None:
            raise self.failures.get("leases") or Unavailable("whoever fetches it does not end")
        return None if await self._stored() is not None else self._lease

    async def release(self) -> None:
        """Give the lease back, if we have it; idempotent."""
        lease, self._lease = self._lease, None
        hold, self._hold = self._hold, None
        self._is_checked = False
        if hold is not None:
            await hold.__aexit__(None, None, None)
        elif lease is not None:
            await lease.release()


@frozen
class _OwnSource(Source):
    """A source that belongs to this cache: another process of it, or the store.

    :param open_at: opens the bytes from an offset on.
    """

    name: str
    file: str
    open_at: Callable[[int], Awaitable[UpstreamBody]]

    @property
    def origin(self) -> None:
        return None

    @property
    def is_other_file(self) -> bool:
        return False

    async def open(self, offset: int, *, allow_encoding: bool) -> UpstreamBody:
        return await self.open_at(offset)
