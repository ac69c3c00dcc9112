"""Inventory: the catalog as whoever keeps the store small sees it."""

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
    """A catalog that can tell sizes and ages; each method is one transaction. Errors: Unavailable.

    Sizes are those of the counters, which every method of the catalog that stores or forgets keeps
    in its transaction.
    """

    async def stored_bytes(self) -> int:
        """Return the bytes of all stored NARs."""

    async def recount(self) -> int:
        """Count what is stored anew; return by how many bytes the counter was too low."""

    async def created_at(self) -> datetime:
        """Return when this catalog was made."""

    async def idle(self, before: datetime, limit: int) -> list[IdleNar]:
        """Return stored NARs that were last wanted before then, the longest unwanted first."""

    async def evict(self, idle: Sequence[IdleNar]) -> list[EvictedNar]:
        """Note that the bytes are to go, as `mark_missing` does, of what is still as it was.

        Durable on return, like no other method: a loss of power must not bring the row back after
        the bytes are gone. Unavailable may mean that it is noted but not durable.

        What was used, stored anew or removed since `idle` said so is left out. The last use of a
        NAR that had none becomes `used_at`, so that its record is forgotten no earlier.
        """

    async def forget_unused(self, before: datetime, now: datetime, limit: int) -> Forgotten:
        """Delete the records of NARs, with their narinfos, that nobody has wanted since then.

        Of those that are not stored, at most so many. A narinfo was wanted when it was last used or
        fetched. A record that bears no time at all is given `now` as its last use.
        """
