"""Eviction: removes the longest unused NARs while the store holds more than its limit.

    over the limit --> lease "lru" --(another has it)--> nothing to do here
                           |
                           v
    write uses --> longest unused NARs --> each under the lease of its download
                           ^                              |
                           |                              v
               (more needed) <-- remove bytes <-- rows say "not stored", if still unused

The row changes before the bytes are removed: a process that dies in between leaves an object
without a row, which `orphans` removes. Row, origin and narinfos stay, so that the NAR can be
fetched again under the same URL (P5). A NAR that a client uploaded, and that no upstream is known
to have, cannot be fetched again. It is removed after all others, and only if a setting says so. The
originals of twins are removed before all others, because no narinfo names them any more. A NAR is
passed over while it arrives, or while a process that fetches or adopts it has its lease.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final

from attrs import define, frozen
from twisted.logger import Logger

from ncps.aio.clocks import Ages
from ncps.aio.tasks import Coalesced
from ncps.cache.nar.objects import Objects
from ncps.cache.narinfo.serve import NarInfos
from ncps.cache.narinfo.state import LastUse
from ncps.cache.world import World
from ncps.errors import NcpsError
from ncps.nix.narurl import NarKey
from ncps.observe.tracing.spans import Span, Step
from ncps.ports import EvictedNar, IdleNar, Lease

LEASE: Final = "lru"
"""Name of the lease of the process that removes bytes from the store."""

SCAN: Final = 10_000
"""Candidates that one query reads, of 1 KiB each. Many, because each query looks at all NARs."""
BATCH: Final = 50
"""NARs that one transaction marks."""
REST_S: Final = 30.0
"""Seconds for which writes start no further run after a run that found nothing to remove."""
REST_SHARE: Final = 10.0
"""The same after a run that removed too little, as a multiple of its duration."""


_Find = Callable[[datetime, int], Awaitable[Sequence[IdleNar]]]
"""Returns NARs that were last used before a time, at most the given number."""


@frozen(kw_only=True)
class Bounds:
    """The bounds of the store's size.

    :param high: bytes above which a write starts a run.
    :param low: bytes that a run leaves, at most.
    :param grace_s: seconds for which a NAR stays after its last use.
    :param keeps_only_copies: whether NARs that clients uploaded, and that no upstream is known to
        have, are never removed; else they are removed after all others.
    """

    high: int
    low: int
    grace_s: float
    keeps_only_copies: bool = True


@define
class EvictionTally:
    """The result of a run.

    :ivar narinfos: number of narinfos whose NAR was removed; the catalog keeps them.
    :ivar freed: bytes of the removed objects.
    :ivar passed_over: number of NARs that were in use.
    :ivar seconds: duration of the run.
    """

    nars: int = 0
    narinfos: int = 0
    freed: int = 0
    passed_over: int = 0
    seconds: float = 0.0


class Eviction:
    """Keeps the store within its bounds.

    :param is_arriving: whether a NAR is being downloaded by this process.
    """

    _log = Logger()

    def __init__(
        self,
        world: World,
        narinfos: NarInfos,
        uses: LastUse,
        *,
        is_arriving: Callable[[NarKey], bool],
        bounds: Bounds,
    ) -> None:
        self._clock = world.clock
        self._ages = Ages(world.clock)
        self._catalog = world.inventory
        self._twins = world.twins
        self._objects = Objects(world)
        self._sidecars = world.narinfos
        self._leases = world.leases
        self._narinfos = narinfos
        self._uses = uses
        self._is_arriving = is_arriving
        self._bounds = bounds
        self._metrics = world.metrics
        self._tracer = world.tracer
        self._is_running = False
        self._looks = Coalesced(
            world.clock, world.tasks, "eviction", self.check, longest_rest_s=REST_S
        )

    def stored(self) -> None:
        """Note that a NAR was stored; check soon whether the store is too large now."""
        self._looks.ask()

    async def check(self) -> None:
        """Make room if the store is over its limit. Raises nothing: it logs errors."""
        await self._reduce(self._bounds.high)

    async def run(self) -> None:
        """Reduce the store to the low mark, also if it is below its limit; else as `check`."""
        await self._reduce(self._bounds.low)

    async def _reduce(self, above: int) -> None:
        """Make room if more than `above` bytes are stored; one run at a time in all processes."""
        if self._is_running:
            return
        self._is_running = True
        try:
            if await self._catalog.stored_bytes() > above:
                lease = await self._leases.try_hold(LEASE)
                if lease is not None:
                    with Step(self._tracer.begin("eviction")) as step:
                        await self._run_under(lease, step)
        except NcpsError as error:
            self._log.warn("old NARs cannot be removed now: {reason}", reason=str(error))
            self._looks.rest(REST_S)
        finally:
            self._is_running = False

    async def _run_under(self, lease: Lease, step: Span) -> None:
        since = self._clock.seconds()
        tally = EvictionTally()
        try:
            await self._uses.flush()
            is_stuck = not await self._shrink(lease, tally)
            left = await self._catalog.stored_bytes()
        finally:
            await lease.release()
            tally.seconds = self._clock.seconds() - since
            self._count(tally)
            step.set("ncps.nars", tally.nars)
            step.set("ncps.bytes", tally.freed)
        if is_stuck:
            # All other NARs are in use. Without a rest, each write would start a futile run.
            self._looks.rest(REST_SHARE * tally.seconds if tally.nars else REST_S)
        self._log.info(
            "removed {nars} NARs ({freed} bytes) in {seconds:.1f} s, {passed} in use were passed"
            " over; {left} bytes are left, at most {high} are allowed{remark}",
            nars=tally.nars,
            freed=tally.freed,
            seconds=tally.seconds,
            passed=tally.passed_over,
            left=left,
            high=self._bounds.high,
            remark="; nothing else may go yet" if is_stuck else "",
        )

    def _count(self, tally: EvictionTally) -> None:
        metrics = self._metrics
        metrics.lru_runs.inc()
        metrics.lru_nars.inc(tally.nars)
        metrics.lru_narinfos.inc(tally.narinfos)
        metrics.lru_freed.inc(tally.freed)
        metrics.lru_seconds.observe(tally.seconds)

    async def _shrink(self, lease: Lease, tally: EvictionTally) -> bool:
        """Remove NARs down to the low mark; return False if no more may be removed.

        The store may exceed the mark again immediately; under load it always does.
        """
        among: list[_Find] = [self._twins.replaced, self._catalog.idle]
        if not self._bounds.keeps_only_copies:
            among.append(self._only_copies)
        for find in among:
            if await self._shrink_among(lease, tally, find):
                return True
        return False

    async def _only_copies(self, before: datetime, limit: int) -> Sequence[IdleNar]:
        return await self._catalog.idle(before, limit, only_copies=True)

    async def _shrink_among(
        self,
        lease: Lease,
        tally: EvictionTally,
        find: _Find,
    ) -> bool:
        """Do as `_shrink` among the NARs that `find` returns."""
        while (over := await self._over()) > 0:
            nars, before = tally.nars, self._ages.before(self._bounds.grace_s)
            candidates = iter(await find(before, SCAN))
            while over > 0 and (batch := _enough(candidates, over)):
                if lease.is_lost:
                    self._log.warn("stopped removing NARs: the lease is lost")
                    return True
                await self._evict(batch, tally)
                over = await self._over()
            if tally.nars == nars:
                return False
        return True

    async def _over(self) -> int:
        return await self._catalog.stored_bytes() - self._bounds.low

    async def _evict(self, batch: Sequence[IdleNar], tally: EvictionTally) -> None:
        async with self._objects.holding() as held:
            victims = [
                idle
                for idle in batch
                if not self._is_arriving(idle.nar.key) and await held.take(idle.nar)
            ]
            await self._uses.flush()  # clients may have come since the candidates were read
            evicted = await self._catalog.evict(victims)
            tally.passed_over += len(batch) - len(evicted)
            # All notices before any bytes are removed: no NAR of these may be shown as stored.
            for each in evicted:
                self._narinfos.changed(each.nar.key)
            for each in evicted:
                await self._remove(each, tally)

    async def _remove(self, evicted: EvictedNar, tally: EvictionTally) -> None:
        nar = evicted.nar
        tally.nars += 1
        tally.narinfos += len(evicted.digests)
        if await self._objects.remove(nar):
            tally.freed += nar.stored_size or 0
        for digest in evicted.digests:
            await self._sidecars.delete(digest)
        current = await self._catalog.nar(nar.key)
        if current is not None and current.is_stored and await self._objects.is_absent(current):
            # A process without a lease has stored it again after its row was changed.
            await self._catalog.mark_missing(nar.key)
            self._narinfos.changed(nar.key)


def _enough(candidates: Iterator[IdleNar], needed: int) -> list[IdleNar]:
    """Take candidates that free `needed` bytes together, but at most `BATCH`."""
    batch: list[IdleNar] = []
    for idle in _first(candidates, BATCH):
        batch.append(idle)
        needed -= idle.nar.stored_size or 0
        if needed <= 0:
            break
    return batch


def _first(candidates: Iterable[IdleNar], count: int) -> Iterator[IdleNar]:
    """Yield at most `count` candidates, without taking one more from the iterator."""
    for _, idle in zip(range(count), candidates, strict=False):
        yield idle
