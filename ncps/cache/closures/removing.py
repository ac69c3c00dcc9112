"""Removing: removes paths and NARs for a client, perhaps for ever.

    pinned? --> Conflict
    arriving here --> its clients get the rest, but it is not published
    leases of downloads --(another process has one)--> Unavailable, or named as busy
    record, durably --> notices to all processes --> bytes and sidecars

The transaction that forgets a path also blocks it, if the client wants that. From then on no
process records the path or its NAR, so that no running download of it is published.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice
from typing import Final, Protocol

from attrs import field, frozen
from twisted.logger import Logger

from ncps.aio.clocks import utc_now
from ncps.cache.answers import Absent, Outcome
from ncps.cache.closures.permit import Permit, anything
from ncps.cache.closures.pin_backup import PinBackup
from ncps.cache.closures.pinning import refuse_pinned
from ncps.cache.closures.selection import Going, Selection
from ncps.cache.nar.download import RunningDownloads
from ncps.cache.nar.objects import Holding, Objects
from ncps.cache.nar.stored import stored_key
from ncps.cache.narinfo.state import Invalidation
from ncps.cache.world import World
from ncps.errors import Malformed, NotFound, Unavailable
from ncps.nix.narurl import NarKey
from ncps.ports import Block, Erased, EvictedNar

BATCH: Final = 50
"""Paths that one transaction forgets."""
MOST_ROOTS: Final = 1000
"""Paths that one call may name, at most."""
MAX_LISTED: Final = 1000
"""Paths that a report names, at most."""
RETRY_S: Final = 5.0
MADE: Final = "zst"
"""Extension of the files that ncps makes itself."""


@frozen(kw_only=True)
class RemovalWish:
    """The wishes of a client that removes paths.

    :param digests: hash parts of store paths.
    :param closure: whether to remove also the paths of their closures that nothing else here needs.
    :param never_again: whether to block the paths: never fetched, never accepted.
    :param dry_run: whether to change nothing.
    :param force: whether to remove pinned paths as well.
    """

    digests: tuple[str, ...]
    closure: bool = False
    never_again: bool = False
    dry_run: bool = False
    force: bool = False

    def check(self) -> None:
        """Raise Malformed if it names no path, or too many."""
        if not 0 < len(self.digests) <= MOST_ROOTS:
            raise Malformed(f"name 1 to {MOST_ROOTS} paths")


@frozen(kw_only=True)
class RemovalReport:
    """The result of a removal, or of a dry run.

    :param removed: base names of the removed paths, at most `MAX_LISTED`; the hash part of a path
        that was not here.
    :param count: number of all removed paths.
    :param kept: number of paths of the closure that others need.
    :param busy: hash parts of paths that another process fetches; these were not removed.
    :param size: bytes that were freed.
    """

    removed: tuple[str, ...] = ()
    count: int = 0
    kept: int = 0
    busy: tuple[str, ...] = field(default=())
    size: int = 0


class RemovalVerbs(Protocol):
    """Removals as the web layer sees them.

    Each verb raises NotFound if there is nothing to remove, Conflict if a pin holds it, Refused if
    the client may not, Unavailable if a part of the cache fails now.
    """

    async def delete_narinfo(
        self, digest: str, *, force: bool = False, permit: Permit = anything
    ) -> None:
        """Forget a narinfo; its NAR stays."""

    async def delete_nar(
        self, key: NarKey, *, force: bool = False, permit: Permit = anything
    ) -> None:
        """Remove the bytes of a NAR in all its compressions; its narinfos stay."""

    async def remove(self, wish: RemovalWish, permit: Permit = anything) -> RemovalReport:
        """Remove paths with their NARs. Raises also Malformed if the wish is invalid."""

    async def blocked(self) -> list[Block]:
        """Return all blocked paths."""

    async def unblock(self, digest: str) -> bool:
        """Stop blocking a path; return False if it was not blocked."""


class Removing(RemovalVerbs):
    """Removes paths and NARs."""

    _log = Logger()

    def __init__(
        self, world: World, board: Invalidation, running: RunningDownloads, backup: PinBackup
    ) -> None:
        self._world = world
        self._catalog = world.catalog
        self._removals = world.removals
        self._store = world.nars
        self._sidecars = world.narinfos
        self._objects = Objects(world)
        self._board = board
        self._running = running
        self._backup = backup

    async def delete_narinfo(
        self, digest: str, *, force: bool = False, permit: Permit = anything
    ) -> None:
        row = await self._catalog.narinfo(digest)
        permit(None if row is None else row[0].narinfo.store_path.base)
        if not force:
            await refuse_pinned(self._world, [digest])
        erased = await self._removals.erase([digest], keeps_nars=True)
        self._tell(erased)
        is_beside = await self._sidecars.delete(digest)
        if not (erased.digests or is_beside):
            raise NotFound(f"{digest}.narinfo is not here")
        self._log.info("deleted narinfo {hash}", hash=digest)

    async def delete_nar(
        self, key: NarKey, *, force: bool = False, permit: Permit = anything
    ) -> None:
        nars = await self._removals.representations(key)
        keys = [nar.key for nar in nars] or [key]
        entries = [e for each in keys for e in await self._catalog.narinfos_of(each)]
        if not entries:
            permit(None)
        for entry in entries:
            permit(entry.narinfo.store_path.base)
        if not force:
            await refuse_pinned(self._world, [entry.digest for entry in entries])
        was_arriving = False
        for each in keys:
            was_arriving |= await self._running.disown(each)
        async with self._objects.holding() as held:
            for each in keys:
                if not await self._is_ours(held, each):
                    raise Unavailable(
                        f"another process is fetching {each.file_name}", retry_after=RETRY_S
                    )
            discarded = await self._removals.discard(keys)
            for each in keys:
                self._board.nar_changed(each)
            gone = [await self._remove_bytes(nar) for nar in discarded]
            left = [await self._remove_object(each) for each in keys]
        if not (was_arriving or discarded or any(left)):
            raise NotFound(f"{key.file_name} is not here")
        self._log.info("deleted NAR {key} ({size} bytes)", key=key.file_name, size=sum(gone))

    async def remove(self, wish: RemovalWish, permit: Permit = anything) -> RemovalReport:
        wish.check()
        chosen = await Selection(self._world).choose(
            wish.digests, closure=wish.closure, permit=permit
        )
        for digest in wish.digests:
            permit(chosen.base(digest))
        if not wish.force:
            await refuse_pinned(self._world, wish.digests)
        if not chosen.paths and not wish.never_again:
            raise NotFound("none of these paths is here")
        unknown = [each for each in wish.digests if each not in chosen.paths]
        busy: list[str] = []
        size = chosen.size
        if not wish.dry_run:
            size = 0
            digests = [*chosen.paths, *(unknown if wish.never_again else ())]
            for at in range(0, len(digests), BATCH):
                size += await self._remove_some(digests[at : at + BATCH], wish, chosen, busy)
            await self._backup.save()
        left = set(busy)
        gone = (base for digest, (base, *_) in chosen.paths.items() if digest not in left)
        more = unknown if wish.never_again else []
        report = RemovalReport(
            removed=tuple(sorted(islice(chain(gone, more), MAX_LISTED))),
            count=len(chosen.paths) - len(left) + len(more),
            kept=chosen.kept,
            busy=tuple(busy),
            size=size,
        )
        await self._world.threads.run(chosen.paths.clear)  # freeing 100,000 entries takes long
        return report

    async def _remove_some(
        self, digests: Sequence[str], wish: RemovalWish, chosen: Going, busy: list[str]
    ) -> int:
        """Remove a batch of paths; return the number of bytes that this freed."""
        async with self._objects.holding() as held:
            going = []
            for digest in digests:
                key = chosen.nar(digest)
                if key is None or wish.never_again or await self._are_ours(held, key):
                    going.append(digest)
                else:
                    busy.append(digest)
            if wish.never_again:
                now = utc_now(self._world.clock)
                erased = await self._removals.block(
                    [
                        Block(digest=digest, name=chosen.name(digest), blocked_at=now)
                        for digest in going
                    ]
                )
            else:
                erased = await self._removals.erase(going)
            self._tell(erased)
            for gone in erased.keys:
                if wish.never_again:
                    self._running.stop(gone, Absent(f"{gone} is blocked", outcome=Outcome.NEGATIVE))
                else:
                    await self._running.disown(gone)
            size = 0
            for nar in erased.nars:
                size += await self._remove_bytes(nar)
            for digest in {*erased.digests, *going}:
                await self._sidecars.delete(digest)
        self._log.info(
            "removed {count} paths ({size} bytes){remark}",
            count=len(going),
            size=size,
            remark="; they are blocked" if wish.never_again else "",
        )
        return size

    async def blocked(self) -> list[Block]:
        return await self._removals.blocked()

    async def unblock(self, digest: str) -> bool:
        is_gone = await self._removals.unblock(digest)
        if is_gone:
            self._log.info("unblocked {hash}", hash=digest)
            await self._backup.save()
        return is_gone

    async def _are_ours(self, held: Holding, key: NarKey) -> bool:
        """Return whether no other process fetches a NAR or its original; hold their leases."""
        nar = await self._catalog.nar(key) if key.extension == MADE else None
        original = nar.made_from if nar is not None else ""
        if original and not await self._is_ours(held, NarKey.parse(original)):
            return False
        return await self._is_ours(held, key)

    async def _is_ours(self, held: Holding, key: NarKey) -> bool:
        """Return whether no other process fetches a NAR; keep our own download unpublished."""
        if await self._running.disown(key):
            return True
        nar = await self._catalog.nar(key)
        return await (held.take_object(key) if nar is None else held.take(nar))

    def _tell(self, erased: Erased) -> None:
        """Notify all processes of the erased narinfos and NARs."""
        for digest in erased.digests:
            self._board.narinfo_changed(digest)
        for key in erased.keys:
            self._board.nar_changed(key)

    async def _remove_bytes(self, evicted: EvictedNar) -> int:
        """Remove the bytes of a NAR and its sidecars; return the number of freed bytes."""
        nar = evicted.nar
        is_gone = nar.is_stored and await self._objects.remove(nar)
        if nar.is_stored and stored_key(nar) != nar.key:
            await self._remove_object(nar.key)
        for digest in evicted.digests:
            await self._sidecars.delete(digest)
        return nar.stored_size or 0 if is_gone else 0

    async def _remove_object(self, key: NarKey) -> bool:
        """Remove an object that no row owns, so that it is not adopted again."""
        return not await self._objects.is_owned(key) and await self._store.delete(key)
