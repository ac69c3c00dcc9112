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
    """A stored NAR and the time of its last use.

    :param used_at: the latest of these times: the last uses of the NAR and of each of its narinfos,
        and the time when it was stored.
    """

    nar: NarRecord
    used_at: datetime


@frozen
class EvictedNar:
    """A NAR that is no longer recorded as stored, but whose bytes are still there.

    :param digests: of its narinfos.
    """

    nar: NarRecord
    digests: tuple[str, ...]


@frozen
class Forgotten:
    """Some records that were deleted.

    :param is_all: whether no more such records are left; if not, call again.
    """

    keys: tuple[NarKey, ...]
    is_all: bool


class Inventory(Catalog, Protocol):
    """A catalog with sizes and ages; each method is one transaction.

    Methods raise Unavailable if the database is away. Sizes come from counters: each method that
    stores or forgets a NAR updates them in its own transaction.
    """

    async def stored_bytes(self) -> int:
        """Return the bytes of all stored NARs."""

    async def recount(self) -> int:
        """Count the stored NARs again; return how many bytes the counter was too low."""

    async def created_at(self) -> datetime:
        """Return when this catalog was created."""

    async def idle(
        self, before: datetime, limit: int, *, only_copies: bool = False
    ) -> list[IdleNar]:
        """Return stored NARs that were last used before `before`, and that no pin holds.

        The NARs that were unused for the longest time come first.

        :param only_copies: True: return only NARs with `NarRecord.is_only_copy`; False: only NARs
            without it.
        """

    async def only_copies(self) -> int:
        """Return the bytes of the stored NARs with `NarRecord.is_only_copy`."""

    async def abandoned(self, before: datetime, limit: int) -> list[IdleNar]:
        """Return uploaded NARs without a narinfo that were stored and last used before `before`."""

    async def evict(self, idle: Sequence[IdleNar]) -> list[EvictedNar]:
        """Record that the bytes of NARs will be removed, as `mark_missing` does.

        It is durable on return: a loss of power must not bring the row back after the bytes are
        gone. If it raises Unavailable, it may be recorded but not durable.

        It omits NARs that were used, stored again, removed or pinned since the call of `idle`. A
        NAR without a last use gets `used_at` as its last use, so that its record is not forgotten
        earlier.
        """

    async def forget_unused(self, before: datetime, now: datetime, limit: int) -> Forgotten:
        """Delete records of NARs, with their narinfos, that no client has used since `before`.

        It deletes at most `limit` records, of NARs that are not stored and that no pin holds. For a
        narinfo the time of its fetch counts as well. A record without any time gets `now` as its
        last use.
        """
