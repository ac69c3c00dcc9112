"""Pinning: keeps closures in the store, and records their paths.

    pin --> row --> walk the closure --> hold each path --> note missing paths --> answer
                                                                |
                       (fetch wanted) narinfos and NARs <-------+
                                                                |
    upkeep: end expired pins; look again at pins with missing paths

The row comes first: if the process dies later, upkeep walks the rest. Once a path is held, no
transaction evicts its NAR. A missing path is held as well, so its NAR stays when it arrives; its
own references are held from the next look on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from attrs import evolve, field, frozen
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.logger import Logger

from ncps.aio.clocks import utc_now
from ncps.aio.waiting import within
from ncps.cache.closures.permit import Permit, anything
from ncps.cache.closures.pin_backup import PinBackup
from ncps.cache.closures.walk import walk
from ncps.cache.nar.download import RunningDownloads
from ncps.cache.nar.serve import Nars
from ncps.cache.narinfo.serve import NarInfos
from ncps.cache.world import World
from ncps.errors import Conflict, Malformed, NcpsError, NotFound
from ncps.ports import Pin
from ncps.ports.pins import LONGEST_LABEL, is_label

WIDTH: Final = 4
"""Paths that are fetched for pins at the same time."""
FETCH_S: Final = 3600.0
"""Longest time for the fetch of one path, in seconds."""
MAX_LISTED: Final = 1000
"""Missing paths that an answer names, at most."""
MISSING_S: Final = 60.0
"""Seconds until upkeep looks again at a pin with missing paths."""
WHOLE_S: Final = 3600.0
"""The same for a pin without missing paths: its bytes may be lost or withdrawn."""
LOOKS: Final = 20
"""Pins that one round of upkeep looks at, at most."""
FETCHES: Final = 4
"""Pins for which one process fetches at the same time."""
FETCH_LEASE: Final = "pins:fetch"


@frozen(kw_only=True)
class PinWish:
    """The wishes of a client that pins a path.

    :param expires_s: seconds until the pin ends; None: it never ends.
    :param fetch: whether to fetch missing paths.
    """

    label: str = ""
    expires_s: float | None = None
    fetch: bool = False

    def check(self) -> None:
        """Raise Malformed if the label or the end is invalid."""
        if not is_label(self.label):
            raise Malformed(f"a label has at most {LONGEST_LABEL} printable characters")
        if self.expires_s is not None and not 0 < self.expires_s <= 100 * 365 * 86400.0:
            raise Malformed("a pin ends in the future, and within 100 years")


@frozen(kw_only=True)
class PinSight:
    """A pin, and its closure as it was seen just now.

    :param missing: hash parts of missing paths, `MAX_LISTED` at most.
    """

    pin: Pin
    missing: tuple[str, ...] = field(default=())


class PinVerbs(Protocol):
    """Pins as the web layer sees them. Each verb raises Unavailable if the database is away."""

    async def pin(self, digest: str, wish: PinWish, permit: Permit = anything) -> PinSight:
        """Pin the closure of a path, or change the label and the end of its pin.

        Raises NotFound if the narinfo is not here (with `fetch`: if no upstream has it, either),
        Malformed if the wish is invalid, Refused if the client may not, or if the closure or the
        number of pins is too large.
        """

    async def unpin(self, digest: str, permit: Permit = anything) -> bool:
        """Remove a pin; return False if there was none. Raises Refused if the client may not."""

    async def pins(self) -> list[Pin]:
        """Return all pins, in the order of the hash parts of their roots."""


class Pinning(PinVerbs):
    """Pins closures, and ends, checks and completes pins."""

    _log = Logger()

    def __init__(
        self,
        world: World,
        narinfos: NarInfos,
        nars: Nars,
        running: RunningDownloads,
        backup: PinBackup,
    ) -> None:
        self._world = world
        self._clock = world.clock
        self._tasks = world.tasks
        self._catalog = world.catalog
        self._pins = world.pins
        self._narinfos = narinfos
        self._nars = nars
        self._running = running
        self._backup = backup
        self._fetching: set[str] = set()

    # The verbs of clients

    async def pin(self, digest: str, wish: PinWish, permit: Permit = anything) -> PinSight:
        wish.check()
        if wish.fetch:
            await self._narinfos.get(digest)
        base = await self._base(digest)
        if base is None:
            raise NotFound(f"{digest}.narinfo is not here; with fetch=1 it is asked for")
        permit(base)
        now = utc_now(self._clock)
        ends = None if wish.expires_s is None else now + timedelta(seconds=wish.expires_s)
        pin = Pin(
            digest=digest,
            label=wish.label,
            created_at=now,
            expires_at=ends,
            is_fetching=wish.fetch,
        )
        is_new = await self._pins.add(pin)
        sight, _ = await self._look(digest)
        self._log.info(
            "{verb} {hash}: {paths} paths, {missing} missing",
            verb="pinned" if is_new else "pinned again",
            hash=digest,
            paths=sight.pin.paths,
            missing=sight.pin.missing,
        )
        await self._backup.save()
        self._fetch_missing(sight.pin)
        return sight

    async def unpin(self, digest: str, permit: Permit = anything) -> bool:
        permit(await self._base(digest))
        is_gone = await self._pins.remove(digest)
        if is_gone:
            self._log.info("unpinned {hash}", hash=digest)
            await self._backup.save()
        return is_gone

    async def pins(self) -> list[Pin]:
        return await self._pins.all()

    async def _base(self, digest: str) -> str | None:
        """Return the base name of a path; None if it is not recorded."""
        row = await self._catalog.narinfo(digest)
        return None if row is None else row[0].narinfo.store_path.base

    # Upkeep

    async def look_after(self) -> None:
        """End expired pins, and look at those that are due. One process at a time does this."""
        now = utc_now(self._clock)
        for pin in await self._pins.expired(now):
            if await self._pins.remove(pin.digest):
                self._log.info(
                    "the pin of {hash} has ended ({label})",
                    hash=pin.digest,
                    label=pin.label or "no label",
                )
        await self._pins.purge()
        due = await self._pins.due(
            missing_before=_before(now, MISSING_S), whole_before=_before(now, WHOLE_S), limit=LOOKS
        )
        for pin in due:
            try:
                sight, _ = await self._look(pin.digest)
            except NotFound:  # unpinned since then
                continue
            self._fetch_missing(sight.pin)
        await self._backup.save()

    async def _look(self, digest: str) -> tuple[PinSight, list[str]]:
        """Walk a closure and hold all its paths; return its sight, and all missing paths.

        Keeps only texts of 100,000 paths, because Python's garbage collector does not visit texts.
        Raises NotFound if the pin is gone.
        """
        missing: list[str] = []
        nars: set[str] = set()
        paths = size = 0
        async for found in walk(self._world.graph, [digest]):
            await self._pins.hold(digest, found.keys())
            paths += len(found)
            for path, facts in found.items():
                if facts is None or facts.stored_size is None:
                    missing.append(path)
                elif facts.nar.file_name not in nars:
                    nars.add(facts.nar.file_name)
                    size += facts.stored_size
        pin = await self._pins.find(digest)
        if pin is None:
            raise NotFound(f"{digest} is not pinned")
        seen = evolve(
            pin,
            paths=paths,
            missing=len(missing),
            size=size,
            looked_at=utc_now(self._clock),
        )
        await self._pins.look(seen)
        return PinSight(pin=seen, missing=tuple(sorted(missing[:MAX_LISTED]))), missing

    # Fetching

    def _fetch_missing(self, pin: Pin) -> None:
        """Begin to fetch a pin's missing paths, if the client wants that and a place is free."""
        is_due = pin.is_fetching and pin.missing and pin.digest not in self._fetching
        if is_due and len(self._fetching) < FETCHES:
            self._fetching.add(pin.digest)
            self._tasks.start(f"fetch for pin {pin.digest}", self._fetch_alone(pin.digest))

    async def _fetch_alone(self, digest: str) -> None:
        """Fetch a pin's missing paths, unless another process of this cache does so now."""
        try:
            lease = await self._world.leases.try_hold(f"{FETCH_LEASE}:{digest}")
            if lease is None:
                return
            try:
                await self._fetch(digest)
            finally:
                await lease.release()
        except NcpsError as error:
            self._log.warn(
                "the rest of pin {hash} is not fetched now: {reason}",
                hash=digest,
                reason=str(error),
            )
        finally:
            self._fetching.discard(digest)

    async def _fetch(self, digest: str) -> None:
        """Fetch narinfos and NARs, each once, until no new missing paths appear."""
        tried: set[str] = set()
        while True:
            sight, missing = await self._look(digest)
            todo = [path for path in missing if path not in tried]
            if not todo:
                break
            tried.update(todo)
            await _each(todo, self._fetch_path)
        self._log.info(
            "pin {hash}: {missing} of {paths} paths are missing after {tried} were fetched",
            hash=digest,
            missing=sight.pin.missing,
            paths=sight.pin.paths,
            tried=len(tried),
        )

    async def _fetch_path(self, digest: str) -> None:
        """Fetch one path; if that fails, it stays missing."""
        try:
            await within(self._clock, FETCH_S, self._fetch_now(digest))
        except (NcpsError, DeferredTimeout) as error:
            self._log.debug("{hash} cannot be fetched: {reason}", hash=digest, reason=str(error))

    async def _fetch_now(self, digest: str) -> None:
        await self._narinfos.get(digest)
        row = await self._catalog.narinfo(digest)
        if row is not None and not row[1].is_stored:
            opened = await self._nars.open(row[1].key)
            opened.close()
            await self._running.ended(row[1].key)


async def _each(items: Iterable[str], act: Callable[[str], Awaitable[None]]) -> None:
    """Act on all items, on `WIDTH` of them at the same time."""
    left = iter(items)

    async def some() -> None:
        for item in left:
            await act(item)

    works: list[Deferred[Any]] = [Deferred.fromCoroutine(some()) for _ in range(WIDTH)]
    await gatherResults(works, consumeErrors=True)


def _before(now: datetime, seconds: float) -> datetime:
    return now - timedelta(seconds=seconds)


async def refuse_pinned(world: World, digests: Iterable[str]) -> None:
    """Raise Conflict if a pin holds one of these paths."""
    holders = await world.pins.holders(tuple(digests))
    for path, roots in holders.items():
        raise Conflict(
            f"{path} is pinned by {', '.join(roots)}: remove the pin first"
            f" (`ncps pin rm {roots[0]}`), or ask for it with force=1"
        )
