"""Room: bounds the uploaded realisations, because nothing removes them automatically."""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IReactorTime

from ncps.errors import StorageFull
from ncps.ports import RealisationEntry, Realisations

MOST: Final = 1_000_000
"""Uploaded realisations, at most."""
MOST_BYTES: Final = 1 << 30
"""Characters of all uploaded realisations, at most; one has 1 MiB at most."""
FRESH_S: Final = 300.0
"""Seconds for which a count is used. This process adds its own uploads to it. It does not know the
uploads to other processes, so these may exceed the bound."""

FULL_S: Final = 10.0
"""The same while there is no room, because clients may have deleted some."""


class RealisationRoom:
    """Refuses uploads for which there is no room."""

    def __init__(self, clock: IReactorTime, rows: Realisations) -> None:
        self._clock = clock
        self._rows = rows
        self._count = 0
        self._size = 0
        self._counted_at: float | None = None

    async def enter(self, entry: RealisationEntry, counted: RealisationEntry | None) -> None:
        """Count an upload.

        Raises StorageFull if there is no room, Unavailable if the catalog cannot count.

        :param counted: the realisation that was uploaded under this key before.
        """
        count = int(counted is None)
        size = _size(entry) - (0 if counted is None else _size(counted))
        if not count and size <= 0:
            return
        now = self._clock.seconds()
        fresh_s = FULL_S if self._is_full(count, size) else FRESH_S
        if self._counted_at is None or now - self._counted_at > fresh_s:
            self._count, self._size = await self._rows.uploaded()
            self._counted_at = now
        if self._is_full(count, size):
            raise StorageFull(
                f"{self._count} realisations with {self._size} bytes were uploaded, and there is"
                f" room for {MOST} with {MOST_BYTES}: delete some of them"
            )
        self._count += count
        self._size += size

    def _is_full(self, count: int, size: int) -> bool:
        return self._count + count > MOST or self._size + size > MOST_BYTES


def _size(entry: RealisationEntry) -> int:
    return len(entry.realisation.render())
