"""Room: how much of the store pins take, and whether they leave room for other NARs."""

from __future__ import annotations

from typing import Final

from twisted.logger import Logger

from ncps.cache.world import World

MIB: Final = 1024 * 1024


class PinnedRoom:
    """Counts pinned bytes, and warns when eviction can no longer free enough.

    :param high: bytes that the store may hold; 0 for no limit.
    :param low: bytes that eviction goes down to.
    :ivar trouble: the warning for the page about readiness; empty if there is none.
    """

    _log = Logger()

    def __init__(self, world: World, *, high: int, low: int) -> None:
        self._pins = world.pins
        self._admission = world.admission
        self._metrics = world.metrics
        self._high = high
        self._low = low
        self.trouble = ""

    async def look(self) -> None:
        """Count the pinned bytes again. Raises Unavailable if the database is away."""
        totals = await self._pins.totals()
        self._metrics.set_pins(totals)
        if not self._high:
            return
        self._admission.reserved = min(totals.size, self._high)
        trouble = ""
        if totals.size > self._low:
            trouble = (
                f"pins keep {totals.size // MIB} MiB; the store may hold {self._high // MIB} MiB,"
                f" and eviction goes down to {self._low // MIB} MiB: remove pins, or raise"
                " cache-max-size"
            )
        if trouble and not self.trouble:
            self._log.warn(
                "{trouble}; NARs that have no room beside the pins are passed through and not kept",
                trouble=trouble,
            )
        elif self.trouble and not trouble:
            self._log.info("pins leave enough room again")
        self.trouble = trouble
