"""Twins: files that ncps has made from stored NARs, in another compression.

A twin has a name and a row of its own. The file from which it was made is its original. The
narinfos of the NAR name the twin instead of the original. The row of the original stays, and its
bytes stay for a while.
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
    """The choice of the stored NARs that get a twin.

    :param compressions: only NARs in one of these.
    :param min_size: bytes of the smallest file.
    :param reused_s: least number of seconds from the time of storing to that of the last use; None:
        all NARs.
    :param used_since: only NARs that a client asked for at that time or later; None: all NARs.
    """

    compressions: tuple[str, ...]
    min_size: int
    reused_s: float | None = None
    used_since: datetime | None = None


class Twins(Protocol):
    """The twins in a catalog; each method is one transaction.

    Methods raise Unavailable if the database is away.
    """

    async def wanting(self, limit: int, wanted: TwinCandidates) -> Sequence[NarRecord]:
        """Return stored NARs from which a twin can be made, and for which none was tried.

        They are verified, have a narinfo and an upstream, and are stored as they are served. They
        are no twins, and no client uploaded them.
        """

    async def waiting(self, wanted: TwinCandidates) -> int:
        """Return how many NARs `wanting` would return without a limit; may be slightly too high."""

    async def join(
        self, twin: NarRecord, original: NarKey, fence: int = 0
    ) -> Sequence[NarInfoEntry]:
        """Record a twin as stored, and make the narinfos of its original name the twin.

        Return the narinfos that name it now. Their last use becomes that of the original, as `part`
        does for the twin. Raises NotFound if the original is not stored or has another NarHash,
        Blocked if the NAR is blocked, Conflict as `Catalog.mark_stored`; then it writes nothing.

        :param twin: its `stored_at` becomes the time when the original was tried.
        """

    async def tried(self, key: NarKey, at: datetime) -> None:
        """Record that no twin of a NAR shall be made."""

    async def part(self, key: NarKey) -> bool:
        """Make the narinfos of a twin name its original again, for which a new twin may be made.

        False if the original has no row any more, or if this is no twin.
        """

    async def replaced(self, before: datetime, limit: int) -> Sequence[IdleNar]:
        """Return stored NARs whose narinfos name a stored twin; those tried earliest come first.

        They were tried and last used before `before`, and an upstream has them.
        """


def renamed(entry: NarInfoEntry, nar: NarRecord) -> NarInfoEntry:
    """Return a narinfo that names another file of its NAR; no signature covers these fields."""
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
