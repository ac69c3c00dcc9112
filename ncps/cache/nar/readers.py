"""ReaderSpeed: whether the clients of large NARs are slower than the network.

Such clients usually wait for their own unpacking. NARs that unpack faster help them, even if these
are larger. For all other clients, larger NARs are slower.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IReactorTime

KEPT: Final = 0.95
"""The factor by which each new answer reduces the weight of the former ones."""
LONGEST_S: Final = 10.0
"""Seconds of sending that one answer counts for, at most: a single client that stops reading for an
hour says little about the others."""
FORGOTTEN_S: Final = 24 * 3600.0
"""Seconds without a new answer after which the former ones no longer count."""
LEAST_SHARE: Final = 0.5
"""Clients count as slow if their window is closed for at least this share of the sending time."""


class ReaderSpeed:
    """Sums up the answers of this process; the last twenty count most."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._noted_at = 0.0
        self._busy_s = 0.0
        self._full_s = 0.0

    def note(self, busy_s: float, full_s: float) -> None:
        """Add the times of an answer; see `ncps.aio.sending_times`."""
        if self._is_old:
            self._busy_s = self._full_s = 0.0
        self._noted_at = self._clock.seconds()
        part = min(1.0, LONGEST_S / busy_s) if busy_s > 0.0 else 1.0
        self._busy_s = KEPT * self._busy_s + part * busy_s
        self._full_s = KEPT * self._full_s + part * full_s

    @property
    def are_slow(self) -> bool:
        """Whether clients are slower than the network; False without an answer of the last day."""
        if self._is_old or self._busy_s <= 0.0:
            return False
        return self._full_s >= LEAST_SHARE * self._busy_s

    @property
    def _is_old(self) -> bool:
        return self._clock.seconds() - self._noted_at > FORGOTTEN_S
