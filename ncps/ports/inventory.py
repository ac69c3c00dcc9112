"""Inventory: the catalog as eviction and the sweeps see it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from attrs import frozen

from ncps.nix.narurl import NarKey
from ncps.ports.catalog import Catalog, NarRecord


@frozen
class IdleNar:
    """A stored NAR and when it was last wanted.

    :param used_at: the latest of the last uses of the NAR and of each of its narinfos, and of the
        time when it was stored.
    """

    nar: NarRecord
    used_at: datetime


@frozen
class EvictedNar:
    """A NAR that is recorded as stored no more; its bytes are still there.

    :param digests: of its narinfos.
    """

    nar: NarRecord
    digests: tuple[str, ...]


@frozen
class Forgotten:
    """Some records that were deleted.

    :param is_all: whether no more of them may be there; otherwise ask again.
    """

    keys: tuple[NarKey, ...]
    is_all: bool


class Inventory(Catalog, Protocol):
    """A catalog that can tell sizes and ages; each method is one transaction.

    Raises Unavailable if the database is away.

    Sizes are those of the counters, which every method of the catalog that stores or forgets keeps
    in its transaction.
    """

    async def stored_bytes(self) -> int:
        """Return the bytes of all stored NARs."""

    async def recount(self) -> int:
        """Count what is stored anew; return how many bytes the counter lacked."""

    async def created_at(self) -> datetime:
        """Return when this catalog was made."""

    async def idle(
        self, before: datetime, limit: int, *, only_copies: bool = False
    ) -> list[IdleNar]:
        """Return stored NARs that were last wanted before `before`, and that no pin holds.

        Those unused for the longest time come first.

        :param only_copies: whether to return those that `NarRecord.is_only_copy` holds for, and no
            others; else all but those.
        """

    async def only_copies(self) -> int:
        """Return the bytes of the stored NARs that `NarRecord.is_only_copy` holds for."""

    async def abandoned(self, before: datetime, limit: int) -> list[IdleNar]:
        """Return uploaded NARs without a narinfo that were stored and last used before `before`."""

    async def evict(self, idle: Sequence[IdleNar]) -> list[EvictedNar]:
        """Record that the bytes of NARs will be removed, as `mark_missing` does.

        Durable on return, like no other method: a loss of power must not bring the row back after
        the bytes are gone. Unavailable may mean that it is recorded but not durable.

        Records it only of NARs whose rows have not changed: those that were used, stored anew,
        removed or pinned since `idle` are left out. A NAR without a last use gets `used_at` as its
        last use, so that its record is not forgotten earlier.
        """

    async def forget_unused(self, before: datetime, now: datetime, limit: int) -> Forgotten:
        """Delete records of NARs, with their narinfos, that no client has wanted since `before`.

        Only of NARs that are not stored and that no pin holds, and at most `limit`. A narinfo was
        wanted when it was last used or fetched. A record that bears no time at all is given `now`
        as its last use.
        """
