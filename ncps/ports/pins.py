"""Pins: store paths whose closures stay in the store."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final, Protocol

from attrs import frozen

MAX_PINS: Final = 10_000
"""Most pins at one time."""

LONGEST_LABEL: Final = 200
"""Characters of a label."""


@frozen(kw_only=True)
class Pin:
    """A path whose closure stays, and the facts of that closure at its last look.

    :param digest: hash part of the root's store path.
    :param label: the reason, for people; empty: none is given.
    :param created_at: when the path was first pinned.
    :param expires_at: when the pin ends; None: never.
    :param is_fetching: whether missing paths are to be fetched.
    :param paths: paths of the closure that are known; 0 before the first look.
    :param missing: those of them whose narinfo or NAR is not stored.
    :param size: bytes of the stored NARs of the closure.
    :param looked_at: the time of that look; None: never.
    """

    digest: str
    label: str = ""
    created_at: datetime
    expires_at: datetime | None = None
    is_fetching: bool = False
    paths: int = 0
    missing: int = 0
    size: int = 0
    looked_at: datetime | None = None


@frozen
class PinTotals:
    """Counts for metrics, and for the limit of the store.

    :param nars: stored NARs that pins keep.
    :param size: their bytes.
    :param missing: paths that are missing, summed over all pins.
    """

    pins: int = 0
    nars: int = 0
    size: int = 0
    missing: int = 0


class Pins(Protocol):
    """The pins of a catalog. A path that one of them holds is not evicted, nor forgotten.

    Raises Unavailable if the database is away, StorageFull if it cannot be written.
    """

    async def add(self, pin: Pin) -> bool:
        """Insert a pin, or give the pin of this root another label and end; whether it was new.

        `created_at` and the facts of the closure stay as they are; `is_fetching` stays once it is
        true. Raises Refused if there are `MAX_PINS` already.
        """

    async def remove(self, digest: str) -> bool:
        """Remove a pin, and all that it holds; False if there is none."""

    async def find(self, digest: str) -> Pin | None:
        """Return the pin of a root."""

    async def all(self) -> list[Pin]:
        """Return all pins, by the hash part of their root."""

    async def hold(self, digest: str, paths: Collection[str]) -> None:
        """Have the pin of a root hold these paths, too. Nothing is done if there is no such pin.

        They are written in batches, each a transaction of its own.
        """

    async def look(self, pin: Pin) -> None:
        """Note the facts of a closure: `paths`, `missing`, `size`, `looked_at`."""

    async def due(
        self, *, missing_before: datetime, whole_before: datetime, limit: int
    ) -> list[Pin]:
        """Return pins to look at again, those first that were not looked at for the longest time.

        :param missing_before: pins that miss something and were last looked at before this.
        :param whole_before: the same for pins that miss nothing.
        """

    async def expired(self, now: datetime) -> list[Pin]:
        """Return the pins that have ended."""

    async def purge(self) -> int:
        """Let go of paths whose pins are gone: a process may have died in between."""

    async def holders(self, paths: Collection[str]) -> Mapping[str, Sequence[str]]:
        """Return the roots of the pins that hold these paths, for each path that has one.

        At most 10 roots of each path, in order.
        """

    async def totals(self) -> PinTotals:
        """Count pinned NARs and missing paths. May be slow."""
