"""Twins: files that ncps has made from stored NARs, in another compression.

A twin is a NAR file with a name and a row of its own. The narinfos of the NAR name it in place of
the file that it was made from, its original, whose row stays, and whose bytes stay for a while.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Protocol

from attrs import evolve, frozen

from ncps.nix.narurl import NarKey
from ncps.ports.catalog import NarInfoEntry, NarRecord
from ncps.ports.inventory import IdleNar


@frozen(kw_only=True)
class TwinCandidates:
    """The stored NARs that get a twin.

    :param compressions: the only ones that count.
    :param min_size: bytes of their file, at least.
    :param reused_s: seconds after which a client asked for them again, at least, counted from the
        time when they were stored; None: no matter whether one did.
    """

    compressions: tuple[str, ...]
    min_size: int
    reused_s: float | None = None


class Twins(Protocol):
    """The twins in a catalog; each method is one transaction.

    Raises Unavailable if the database is away.
    """

    async def wanting(self, limit: int, wanted: TwinCandidates) -> Sequence[NarRecord]:
        """Return stored NARs that a twin could be made from, and for which that was not tried.

        They were found right, have a narinfo and an upstream, are kept as they are served, are no
        twins themselves, and no client has uploaded them.
        """

    async def waiting(self, wanted: TwinCandidates) -> int:
        """Return about how many `wanting` would return without a limit; may be some too many."""

    async def join(
        self, twin: NarRecord, original: NarKey, fence: int = 0
    ) -> Sequence[NarInfoEntry]:
        """Record a twin as stored, and have the narinfos of its original name it.

        The original counts as used when a client last asked for one of them, as a twin in `part`.

        Return the narinfos that name it now. Raises NotFound if the original has no row, or another
        NarHash, Blocked if the NAR is blocked, Conflict as `Catalog.mark_stored`; then nothing is
        written.

        :param twin: its `stored_at` is when the original is said to have been tried.
        """

    async def tried(self, key: NarKey, at: datetime) -> None:
        """Note that no twin of a NAR is to be made."""

    async def part(self, key: NarKey) -> bool:
        """Have the narinfos of a twin name its original again, of which another may be made.

        False if the original has no row any more, or this is no twin.
        """

    async def replaced(self, before: datetime, limit: int) -> Sequence[IdleNar]:
        """Return stored NARs whose narinfos name a stored twin, those tried first before others.

        They were tried and last used before `before`, and an upstream has them.
        """


def renamed(entry: NarInfoEntry, nar: NarRecord) -> NarInfoEntry:
    """Return a narinfo as it names another file of its NAR; no signature covers these fields."""
    narinfo = evolve(
        entry.narinfo,
        url=nar.key.url,
        compression=nar.compression,
        file_hash=nar.file_hash,
        file_size=nar.file_size,
    )
    return evolve(entry, narinfo=narinfo)


def last_shown(entries: Iterable[NarInfoEntry]) -> datetime | None:
    """Return when a client last asked for one of some narinfos; None if none did."""
    times = (entry.last_used_at for entry in entries)
    return max((at for at in times if at is not None), default=None)
