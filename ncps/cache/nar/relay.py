"""Relay: one fetch for all processes that share a store (P4).

The process that holds the lease of a NAR fetches it from the upstreams. The others read its growing
file, at the address in the lease, into spools of their own, and their clients read these. If the
holder disappears, one of the others gets the lease and continues from the byte it has. A download
that gets its lease immediately, and keeps it, needs no relay.

    lease free? --yes--> ours; stored by now? ----no---> upstreams, from the byte we have
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
    AsyncIterator,
    Awaitable,
    Callable,
    Container,
    Coroutine,
)
from contextlib import aclosing
from functools import partial
from typing import Any, Final, TypeVar

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime

from ncps.aio.body import PassedBody
from ncps.aio.waiting import sleep, within
from ncps.ask.opening import TooSlow, is_kept
from ncps.cache.cluster import FetchLease
from ncps.cache.nar.sources import Source, Sources
from ncps.cache.nar.stored import open_stored
from ncps.cache.world import World
from ncps.errors import Corrupt, NotFound, Unavailable
from ncps.nix.narurl import NarKey
from ncps.ports import Lease, NarRecord, UpstreamBody
from ncps.settings.schema.upstream import UpstreamsSettings

T = TypeVar("T")

PEER: Final = "peer"
"""The name that stands for all other processes of this cache, among the names of upstreams."""

TURN_S: Final = 1.0
"""Seconds to wait for the lease before its holder is asked once more."""

SETTLE_S: Final = 60.0
"""Seconds that the holder may take to publish a file after it has sent the last byte."""


LOOK_S: Final = 5.0
"""Seconds between two checks of another process's pace: its lease may become free."""


class AlreadyStored(Unavailable):
    """Another process stored the NAR while this one waited for the lease."""


class Relay:
    """Gives the sources of one download whose lease another process has had.

    The sources are the holder of the lease, or the upstreams.

    :param lease: the owner of the download releases it.
    :param sources: the upstreams, which are asked while the lease is ours.
    """

    def __init__(self, world: World, key: NarKey, sources: Sources, lease: FetchLease) -> None:
        self.failures = sources.failures
        self._clock = world.clock
        self._cluster = world.cluster
        self._catalog = world.catalog
        self._open_stored = partial(open_stored, world.nars, world.threads)
        self._key = key
        self._sources = sources
        self._lease = lease
        self._is_checked = False
        self._relayed = 0
        self._until: float | None = None

    async def each(
        self, shunned: Container[str] = (), suspects: Container[str] = ()
    ) -> AsyncGenerator[Source, None]:
        """Yield the sources of one round.

        All rounds together wait for `Cluster.patience_s` seconds after the last byte of a peer.
        Raises AlreadyStored if another process has stored the NAR.
        """
        if self._until is None:  # the download has just tried to take the lease, in vain
            self._until = self._clock.seconds() + self._cluster.patience_s
            is_ours: bool | None = False
        else:
            is_ours = await self._has_lease()
        while is_ours is False:
            before = self._relayed
            peer = None if PEER in shunned or not self._left_s else await self._peer()
            if peer is not None:
                yield peer
            if self._relayed > before:
                self._until = self._clock.seconds() + self._cluster.patience_s
            elif not self._left_s:
                why = self.failures.get(PEER) or "it gave no address"
                self.failures[PEER] = Unavailable(f"not done in time: {why}", timed_out=True)
                return
            await self._wait(min(TURN_S, self._left_s))
            is_ours = await self._has_lease()
        if self._lease.held is not None:
            async with aclosing(self._ours(shunned, suspects)) as sources:
                async for source in sources:
                    yield source

    @property
    def _left_s(self) -> float:
        """Seconds that are left to wait for the other processes."""
        assert self._until is not None
        return max(0.0, self._until - self._clock.seconds())

    async def _in_time(self, asking: Coroutine[Any, Any, T]) -> T:
        """Wait for another process, at most `_left_s` seconds. Raises Unavailable after that."""
        left_s = self._left_s
        return await within(self._clock, left_s, asking, f"no answer within {left_s:.3g} s")

    async def _has_lease(self) -> bool | None:
        """Try to take the lease; return whether it is ours, or None if the backend cannot tell."""
        try:
            return await self._lease.is_ours()
        except Unavailable as error:
            if not self._relayed:
                raise  # clients wait for a status: an error can still be one
            self.failures["leases"] = error
            return None

    async def _ours(
        self, shunned: Container[str], suspects: Container[str]
    ) -> AsyncGenerator[Source, None]:
        stored = await self._stored()
        if stored is not None:
            if not self._relayed:
                raise AlreadyStored("another process has stored it")
            opened = partial(self._follow_stored, stored)
            yield _OwnSource("store", str(stored.file_hash), opened)
        async with aclosing(self._sources.each(shunned, suspects)) as sources:
            async for source in sources:
                yield source

    async def _stored(self) -> NarRecord | None:
        """Return the NAR's row, if a former holder of the lease has stored it.

        Raises Unavailable if the database is away.
        """
        if self._is_checked:
            return None
        nar = await self._catalog.nar(self._key)
        self._is_checked = nar is None or not nar.is_stored
        return None if self._is_checked else nar

    async def _peer(self) -> Source | None:
        """Return the lease's holder as a source, if it can be reached and has the growing file."""
        try:
            address = await self._cluster.leases.holder(self._lease.name)
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
        """Open the file that another process fetches; see `_Follower` for a slow process."""
        opening = self._cluster.peers.open_nar(address, self._key, offset=offset)
        body, pace = await self._in_time(opening), self._cluster.pace
        follower = _Follower(body, self._clock, pace, self._took, self._overtake)
        return PassedBody.over(body, follower.chunks(), follower.closed)

    async def _overtake(self) -> bool:
        """Take the lease if it is free, although its former holder still sends."""
        try:
            return await self._lease.is_ours()
        except Unavailable:
            return False

    def _took(self, count: int) -> None:
        self._relayed += count

    async def _wait(self, seconds: float) -> None:
        """Wait for the lease at most `seconds`; note a failure in `failures`."""
        taking = self._cluster.leases.take(self._lease.name)
        try:
            self._lease.hold(await within(self._clock, seconds, taking))
        except DeferredTimeout:
            return
        except Unavailable as error:
            self.failures["leases"] = error

    async def settle(self) -> Lease | None:
        """Take the lease to publish, after the last byte. Raises Unavailable if it is not free.

        Returns None if the NAR is stored already.
        """
        if self._lease.held is None or self._lease.held.is_lost:
            await self._lease.release()
            self._is_checked = False
            await self._wait(SETTLE_S)
        if self._lease.held is None:
            raise self.failures.get("leases") or Unavailable(
                "the process that fetches it does not finish"
            )
        return None if await self._stored() is not None else self._lease.held


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


class _Follower:
    """Passes on the body of another process of this cache, which holds the lease of the NAR.

    A holder may be as slow as its upstream. While it is slower than the pace, or silent, this
    object tries to take its lease. If that succeeds, TooSlow ends the body. A timer measures the
    pace, because a silent holder sends no bytes at all.

    :param took: called with the number of bytes of each chunk.
    :param overtake: takes the lease if it is free; returns whether it was.
    """

    def __init__(
        self,
        body: UpstreamBody,
        clock: IReactorTime,
        pace: UpstreamsSettings,
        took: Callable[[int], object],
        overtake: Callable[[], Awaitable[bool]],
    ) -> None:
        self._body = body
        self._clock = clock
        self._pace = pace
        self._took = took
        self._overtake = overtake
        self._count = 0
        self._is_left = False
        self._watch: Deferred[None] | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        self._watch = Deferred.fromCoroutine(self._look())
        self._watch.addErrback(lambda failure: failure.trap(CancelledError))
        try:
            async for chunk in self._body:
                self._count += len(chunk)
                self._took(len(chunk))
                yield chunk
        except Unavailable:
            if not self._is_left:
                raise
        if self._is_left:
            raise TooSlow("the process that fetches it was too slow, and its lease is free")

    async def _look(self) -> None:
        """Check the pace at intervals; try to take the lease while the pace is too low."""
        look_s = min(LOOK_S, self._pace.min_receive_window_s)
        while True:
            before = self._count
            await sleep(self._clock, look_s)
            is_enough = self._count > before and is_kept(self._pace, self._count - before, look_s)
            if not is_enough and await self._overtake():
                self._is_left = True
                self._body.close()
                return

    def closed(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
