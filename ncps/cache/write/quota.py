"""Quota: whether the store has room for an upload that no upstream has.

NARs of upstreams make room for an upload; other uploads do not, unless a setting allows it. So a
store that is full of uploads takes no more of them.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IReactorTime

from ncps.cache.write.rules import UploadRules
from ncps.errors import StorageFull, TooLarge
from ncps.ports import Inventory

FRESH_S: Final = 30.0
"""Seconds until the uploads are counted again. Those of this process are added meanwhile."""


class Quota:
    """Counts the uploads that no upstream has, and refuses those that do not fit."""

    def __init__(self, clock: IReactorTime, inventory: Inventory, rules: UploadRules) -> None:
        self._clock = clock
        self._inventory = inventory
        self._rules = rules
        self._bytes = 0
        self._counted_at: float | None = None

    @property
    def trouble(self) -> str:
        """The reason why no upload fits, by the last count; empty if uploads fit."""
        rules = self._rules
        if not rules.largest_store or not rules.keeps_only_copies:
            return ""
        if self._bytes < rules.largest_store:
            return ""
        return (
            f"uploads are refused: {self._bytes} bytes were uploaded that no upstream is known to"
            f" have, and the store may hold {rules.largest_store} (cache-max-size); delete some of"
            " them, or let them go by cache-lru-evict-uploads"
        )

    async def check(self) -> None:
        """Count anew. Raises Unavailable if the database is away."""
        if self._rules.largest_store:
            self._bytes = await self._inventory.only_copies()
            self._counted_at = self._clock.seconds()

    def refuse_large(self, size: int) -> None:
        """Raise TooLarge if no upload may have this size; for a check before the bytes arrive."""
        rules = self._rules
        if rules.max_size and size > rules.max_size:
            rules.reached("cache-upload-max-size")
            raise TooLarge(
                f"the upload has {size} bytes, over {rules.max_size} (cache-upload-max-size)"
            )

    async def refuse(self, size: int) -> None:
        """Raise StorageFull, or TooLarge, if an upload of this size does not fit.

        Raises Unavailable if the database is away.
        """
        rules = self._rules
        if not rules.largest_store:
            return
        if size > rules.largest_store:
            rules.reached("cache-max-size")
            raise TooLarge(
                f"the upload has {size} bytes, and the store may hold {rules.largest_store}"
                " (cache-max-size)"
            )
        if not rules.keeps_only_copies:
            return
        if self._counted_at is None or self._clock.seconds() - self._counted_at > FRESH_S:
            await self.check()
        if self._bytes + size > rules.largest_store:
            rules.reached("cache-max-size")
            raise StorageFull(
                f"the store is full of uploads: {self._bytes} bytes of {rules.largest_store}"
                " (cache-max-size)"
            )

    def stored(self, size: int) -> None:
        """Count an upload that was stored."""
        self._bytes += size
