"""ReaderSpeed: whether the clients of large NARs are slower than the network.

Such clients usually wait for their own unpacking. NARs that unpack faster help them, even if these
are larger. For all other clients, larger NARs are slower.
"""

from __future__ import annotations

from typing import Final

KEPT: Final = 0.95
"""The factor by which each new answer reduces the weight of the former ones."""
LONGEST_S: Final = 10.0
"""Seconds of sending that one answer counts for, at most: a single client that stops reading for an
hour says little about the others."""
LEAST_SHARE: Final = 0.5
"""Clients count as slow if their window is closed for at least this share of the sending time."""


class ReaderSpeed:
    """Sums up the answers of this process; the last twenty count most."""

    def __init__(self) -> None:
        self._busy_s = 0.0
        self._full_s = 0.0

    def note(self, busy_s: float, full_s: float) -> None:
        """Add the times of an answer; see `ncps.aio.sending_times`."""
        part = min(1.0, LONGEST_S / busy_s) if busy_s > 0.0 else 1.0
        self._busy_s = KEPT * self._busy_s + part * busy_s
        self._full_s = KEPT * self._full_s + part * full_s

    @property
    def are_slow(self) -> bool:
        """Whether clients are slower than the network; False before the first answer."""
        return self._busy_s > 0.0 and self._full_s >= LEAST_SHARE * self._busy_s
