"""Eviction: the NARs unwanted for longest make room once the store holds more than it may.

    over the limit --> lease "lru" --(somebody has it)--> nothing to do here
                           |
                           v
    write down uses --> the longest unwanted --> each under the lease of its download
                           ^                              |
                           |                              v
                     (more needed) <-- bytes go <-- rows say "not stored", if still unwanted

The row goes before the bytes: whatever dies in between leaves an object that nobody knows, for
`orphans` to remove. Row, origin and narinfos stay, so that the NAR can be fetched again under the
same URL (P5). What is arriving, or leased by whoever fetches or takes it over, is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from attrs import define, frozen
from twisted.logger import Logger

from ncps.aio.clocks import Ages
from ncps.aio.tasks import Coalesced
from ncps.cache.nar.objects import Objects
from ncps.cache.narinfo.last_use import LastUse
from ncps.cache.narinfo.serve import NarInfos
from ncps.cache.world import World
from ncps.errors import NcpsError
from ncps.nix.narurl import NarKey
from ncps.ports import EvictedNar, IdleNar, Lease

LEASE: Final = "lru"
"""Name of the lease of whoever removes bytes from the store."""

SCAN: Final = 2000
"""Candidates read at once: each reading looks through all NARs."""
BATCH: Final = 50
"""NARs that one transaction marks."""
REST_S: Final = 30.0
"""How long writes start no further run after one that found nothing to remove."""
REST_SHARE: Final = 10.0
"""Likewise after one that removed something, but not enough, as a multiple of its duration."""


@frozen(kw_only=True)
class Bounds:
    """How large the store may be.

    :param high: bytes above which a write has it made smaller.
    :param low: bytes it is then made smaller than, or as large as.
    :param grace_s: what was wanted within so many seconds stays.
    """

    high: int
    low: int
    grace_s: float


@define
class EvictionTally:
    """What a run has come to.

    :ivar narinfos: whose NAR was removed; they are known as before.
    :ivar freed: bytes that objects had which are gone.
    :ivar passed_over: NARs that were in use.
    :ivar seconds: it took.
    """

    nars: int = 0
    narinfos: int = 0
    freed: int = 0
    passed_over: int = 0
    seconds: float = 0.0


class Eviction:
    """See the module.

    :param is_arriving: whether a NAR is being downloaded by this process.
    :param ended: told of each run.
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
        ended: Callable[[EvictionTally], object] = lambda _: None,
    ) -> None:
        self._clock = world.clock
        self._ages = Ages(world.clock)
        self._catalog = world.inventory
        self._objects = Objects(world)
        self._sidecars = world.narinfos
        self._leases = world.leases
        self._narinfos = narinfos
        self._uses = uses
        self._is_arriving = is_arriving
        self._bounds = bounds
        self._ended = ended
        self._is_running = False
        self._looks = Coalesced(
            world.clock, world.tasks, "eviction", self.check, longest_rest_s=REST_S
        )

    def stored(self) -> None:
        """Take note that something was stored: look soon whether that was too much."""
        self._looks.ask()

    async def check(self) -> None:
        """Make room if the store is over its limit. Never fails: what fails is logged."""
        await self._reduce(self._bounds.high)

    async def run(self) -> None:
        """Make room down to the low mark, also where the limit is not reached, as for `check`."""
        await self._reduce(self._bounds.low)

    async def _reduce(self, above: int) -> None:
        """Make room if more than so many bytes are stored; one run at a time in all processes."""
        if self._is_running:
            return
        self._is_running = True
        try:
            if await self._catalog.stored_bytes() > above:
                lease = await self._leases.try_hold(LEASE)
                if lease is not None:
                    await self._run_under(lease)
        except NcpsError as error:
            self._log.warn("old NARs cannot be removed now: {reason}", reason=str(error))
            self._looks.rest(REST_S)
        finally:
            self._is_running = False

    async def _run_under(self, lease: Lease) -> None:
        since = self._clock.seconds()
        tally = EvictionTally()
        try:
            await self._uses.flush()
            is_stuck = not await self._shrink(lease, tally)
            left = await self._catalog.stored_bytes()
        finally:
            await lease.release()
            tally.seconds = self._clock.seconds() - since
            self._ended(tally)
        if is_stuck:
            # All that is left is in use: to look for more again and again would be all we do.
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

    async def _shrink(self, lease: Lease, tally: EvictionTally) -> bool:
        """Remove NARs until the low mark is reached; False: none is left that may go.

        That the mark is passed again right afterwards says nothing: under load it always is.
        """
        while (over := await self._over()) > 0:
            nars, before = tally.nars, self._ages.before(self._bounds.grace_s)
            candidates = iter(await self._catalog.idle(before, SCAN))
            while over > 0 and (batch := _enough(candidates, over)):
                if lease.is_lost:
                    self._log.warn("stopped removing NARs: another process may have begun")
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
            await self._uses.flush()  # whoever came since the candidates were read
            evicted = await self._catalog.evict(victims)
            tally.passed_over += len(batch) - len(evicted)
            # At once for all: from here on none of them may be shown as stored.
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
            # Stored by somebody who held no lease, between the row and the bytes.
            await self._catalog.mark_missing(nar.key)
            self._narinfos.changed(nar.key)


def _enough(candidates: Iterator[IdleNar], needed: int) -> list[IdleNar]:
    """Take as many as free so many bytes, at most a batch."""
    batch: list[IdleNar] = []
    for idle in _first(candidates, BATCH):
        batch.append(idle)
        needed -= idle.nar.stored_size or 0
        if needed <= 0:
            break
    return batch


def _first(candidates: Iterable[IdleNar], count: int) -> Iterator[IdleNar]:
    """At most so many, without taking one more."""
    for _, idle in zip(range(count), candidates, strict=False):
        yield idle
