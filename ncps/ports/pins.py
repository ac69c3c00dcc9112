"""Pins: store paths whose closures stay in the store."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final, Protocol

from attrs import frozen

MAX_PINS: Final = 10_000
"""Pins at one time, at most."""

LONGEST_LABEL: Final = 200
"""Characters of a label, at most."""


def is_label(text: str) -> bool:
    """Return whether a text may be a label."""
    return len(text) <= LONGEST_LABEL and text.isprintable()


@frozen(kw_only=True)
class Pin:
    """A path whose closure stays, and the facts of that closure at the last check.

    :param digest: hash part of the root's store path.
    :param label: the reason, for people; empty: none is given.
    :param created_at: when the path was first pinned.
    :param expires_at: when the pin ends; None: never.
    :param is_fetching: whether ncps fetches missing paths.
    :param paths: number of known paths of the closure; 0 before the first check.
    :param missing: how many of these have no stored narinfo or NAR.
    :param size: bytes of the stored NARs of the closure.
    :param looked_at: the time of the last check; None: never.
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
    """The counts for metrics, and for the limit of the store.

    :param nars: stored NARs that pins keep.
    :param size: their bytes.
    :param missing: the sum of the missing paths of all pins.
    """

    pins: int = 0
    nars: int = 0
    size: int = 0
    missing: int = 0


class Pins(Protocol):
    """The pins of a catalog. The cache neither evicts nor forgets a path that a pin holds.

    Methods raise Unavailable if the database is away, StorageFull if it cannot be written.
    """

    async def add(self, pin: Pin) -> bool:
        """Insert a pin, or change label and end of the pin of this root; True if it is new.

        `created_at` and the facts of the closure stay; `is_fetching` stays if it is true. Raises
        Refused if there are `MAX_PINS` already.
        """

    async def remove(self, digest: str) -> bool:
        """Remove a pin, so that it holds no path any more; False if there is none."""

    async def find(self, digest: str) -> Pin | None:
        """Return the pin of a root, or None."""

    async def all(self) -> list[Pin]:
        """Return all pins, by the hash part of their root."""

    async def hold(self, digest: str, paths: Collection[str]) -> None:
        """Add paths to those that the pin of a root holds; do nothing if there is no such pin.

        Each batch of paths is one transaction.
        """

    async def look(self, pin: Pin) -> None:
        """Record the facts of a closure: `paths`, `missing`, `size`, `looked_at`."""

    async def due(
        self, *, missing_before: datetime, whole_before: datetime, limit: int
    ) -> list[Pin]:
        """Return pins whose closures must be checked again; the oldest check comes first.

        :param missing_before: return pins with missing paths if the check was before this time.
        :param whole_before: return pins without missing paths if the check was before this time.
        """

    async def expired(self, now: datetime) -> list[Pin]:
        """Return the pins that have ended."""

    async def purge(self) -> int:
        """Release paths whose pins are gone: a process may have died between two steps.

        Returns how many.
        """

    async def holders(self, paths: Collection[str]) -> Mapping[str, Sequence[str]]:
        """Return, for each of these paths that a pin holds, the roots of its pins.

        It returns at most 10 roots for each path, in order.
        """

    async def totals(self) -> PinTotals:
        """Count pinned NARs and missing paths. May be slow."""
