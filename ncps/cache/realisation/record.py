"""Record: finds realisations that may be shown, and writes new ones.

Two builds of a derivation may have different results, so there may be two realisations of one
output. The first one stays, because clients have it already. Only a realisation with a stronger
voucher replaces it. A signature by a key is stronger than the right to upload, and that right is
stronger than nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

from attrs import evolve
from twisted.logger import Logger

from ncps.aio.clocks import utc_now
from ncps.cache.narinfo.state import CacheState
from ncps.cache.realisation.room import RealisationRoom
from ncps.cache.realisation.verify import RealisationVerifier
from ncps.cache.world import World
from ncps.errors import Conflict, Malformed, Refused, StorageFull, Unavailable
from ncps.nix.realisation import Realisation, RealisationKey
from ncps.nix.storepath import StorePath
from ncps.ports import RealisationEntry

ATTEMPTS: Final = 10
"""Times that a write is tried, at most; it fails if another process has written since the read."""
MAX_USES: Final = 100_000
"""Uses that are noted between two flushes, at most."""

Choice = Callable[[RealisationEntry, RealisationEntry], Awaitable[RealisationEntry]]
"""Makes the realisation to keep, from a new one and the present one."""


class RealisationRecords:
    """Reads and writes realisations."""

    _log = Logger()

    def __init__(self, world: World, state: CacheState, verifier: RealisationVerifier) -> None:
        self._clock = world.clock
        self._rows = world.realisations
        self._copies = world.realisation_copies
        self._catalog = world.catalog
        self._board = state.board
        self._verifier = verifier
        self._room = RealisationRoom(world.clock, world.realisations)
        self._uses: dict[RealisationKey, datetime] = {}

    async def find(self, key: RealisationKey) -> RealisationEntry | None:
        """Return a realisation to show, and note its use. Raises Unavailable as `Realisations`."""
        entry = await self._rows.find(key)
        entry = None if entry is None else self._verifier.vouched(entry)
        if entry is not None and len(self._uses) < MAX_USES:
            self._uses[key] = utc_now(self._clock)
        return entry

    async def flush(self) -> None:
        """Write the times of use. If that fails they are lost, so that entries look older."""
        uses, self._uses = self._uses, {}
        if uses:
            await self._rows.touch(uses)

    async def record(self, entry: RealisationEntry) -> RealisationEntry:
        """Record a fetched realisation; return the one to serve, also if nothing can be written."""

        async def choose(new: RealisationEntry, old: RealisationEntry) -> RealisationEntry:
            return new if self._verifier.rank(new) > self._verifier.rank(old) else old

        try:
            kept, before = await self._settle(entry, choose)
            if before is not None and before.is_uploaded and not kept.is_uploaded:
                await self._copies.delete(kept.key.digest)  # no upload any more
            return kept
        except (Unavailable, StorageFull) as error:
            self._log.warn(
                "{realisation} is served but not recorded: {reason}",
                realisation=entry.key.path,
                reason=str(error),
            )
            return entry

    async def take(
        self, entry: RealisationEntry
    ) -> tuple[RealisationEntry, RealisationEntry | None]:
        """Record an uploaded realisation durably; return the kept one, and the earlier one.

        Raises Conflict if another one has a stronger voucher, StorageFull if there is no room, or
        nothing can be written, Unavailable if the catalog or the store fails now.
        """
        there = await self._rows.find(entry.key)
        counted = there if there is not None and there.is_uploaded else None
        await self._room.enter(entry, counted)
        kept, before = await self._settle(entry, self._prefer)
        for _ in range(ATTEMPTS):
            # An older copy may overwrite a newer one: the row says which one counts.
            await self._copies.put(kept.key.digest, render_copy(kept))
            there = await self._rows.find(kept.key)
            if there is None or evolve(there, last_used_at=kept.last_used_at) == kept:
                break
            kept = there
        return kept, before

    async def restore(self, entry: RealisationEntry) -> None:
        """Record a realisation of which a copy was found, unless another one is known."""

        async def choose(_: RealisationEntry, old: RealisationEntry) -> RealisationEntry:
            return old

        await self._settle(entry, choose)

    async def forget(self, key: RealisationKey, may: Callable[[StorePath | None], bool]) -> bool:
        """Drop a realisation and its copy; return False if there is none.

        Deletes the copy first. If the process dies before it deletes the row, the realisation is
        still there, and a rebuild does not bring back a deleted one. An upload at the same time may
        write the copy again. So the copy is deleted again after the row, unless that upload has
        written a row of its own. Raises Refused if the client may not delete the realisation.

        :param may: whether the client may delete a realisation of this path; None if the path is
            unknown.
        """
        entry = await self._rows.find(key)
        if entry is not None:
            _check(entry.realisation, may)
        text = await self._copies.get(key.digest)
        if text is not None:
            _check(_read(text), may)
        was_there = await self._copies.delete(key.digest)
        was_there |= await self._rows.forget(key)
        if await self._rows.find(key) is None:
            await self._copies.delete(key.digest)
            there = await self._rows.find(key)
            if there is not None and there.is_uploaded:  # an upload has just written its row
                await self._copies.put(key.digest, render_copy(there))
        return was_there

    async def _settle(
        self, entry: RealisationEntry, choose: Choice
    ) -> tuple[RealisationEntry, RealisationEntry | None]:
        """Write the realisation that `choose` returns; return it, and the earlier one."""
        for _ in range(ATTEMPTS):
            before = await self._rows.find(entry.key)
            old = None if before is None else self._verifier.vouched(before)
            kept = entry
            if old is not None and old.realisation.says_as(entry.realisation):
                kept = self._verifier.merged(entry, old)
            elif old is not None:
                kept = await choose(entry, old)
            if kept == before or await self._rows.put(kept, before):
                self._board.realisation_appeared(entry.key)
                return kept, before
        raise Unavailable(f"{entry.key.path} is written by too many clients at once")

    async def _prefer(self, new: RealisationEntry, old: RealisationEntry) -> RealisationEntry:
        """Choose between an upload and the present one; raises Conflict if that is stronger."""
        ranks = self._verifier.rank(new), self._verifier.rank(old)
        if ranks[0] < ranks[1]:
            voucher = "nothing" if not old.verified_by else old.verified_by
            raise Conflict(
                f"{old.realisation.out_path.base} is known as {old.key.path}, vouched for by"
                f" {voucher}: sign the upload by a trusted key, or delete the other one first"
            )
        holds = ranks[0] == ranks[1] and (
            await self._is_here(old.realisation) or not await self._is_here(new.realisation)
        )
        self._log.warn(
            "{realisation} was uploaded as {new}, and was known as {old} before: the {winner} one"
            " is kept",
            realisation=new.key.path,
            new=new.realisation.out_path.base,
            old=old.realisation.out_path.base,
            winner="older" if holds else "newer",
        )
        return old if holds else evolve(new, last_used_at=old.last_used_at)

    async def _is_here(self, realisation: Realisation) -> bool:
        """Return whether this cache knows the path that a realisation names."""
        return await self._catalog.narinfo(realisation.out_path.digest) is not None


def _check(stated: Realisation | None, may: Callable[[StorePath | None], bool]) -> None:
    path = None if stated is None else stated.out_path
    if not may(path):
        raise Refused(f"this client may not delete {'every path' if path is None else path.base}")


def _read(text: bytes) -> Realisation | None:
    """Parse a copy; return None if it is damaged."""
    try:
        return parse_copy(text)
    except Malformed:
        return None


def render_copy(entry: RealisationEntry) -> bytes:
    """Return the text of an upload's copy: a line with its path, then the realisation."""
    return entry.key.path.encode() + b"\n" + entry.realisation.render() + b"\n"


def parse_copy(text: bytes) -> Realisation:
    """Parse the text of a copy. Raises Malformed if it is none."""
    path, _, rest = text.partition(b"\n")
    try:
        key = RealisationKey.parse(path.decode("ascii"))
    except UnicodeDecodeError:
        raise Malformed("the copy of a realisation does not begin with its path") from None
    return Realisation.parse(rest, key)
