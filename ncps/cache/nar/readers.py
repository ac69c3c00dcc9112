"""Readers: whether the clients of large NARs are slower than the network.

Such clients are usually busy with unpacking: they gain by NARs that they unpack faster, also if
these are larger. All others lose by larger NARs.
"""

from __future__ import annotations

from typing import Final

KEPT: Final = 0.95
"""The weight of all former answers at a new one."""
LEAST_SHARE: Final = 0.5
"""Share of the sending time in which slow clients have a closed window, at least."""


class Readers:
    """Sums up the answers of this process; the last twenty count most."""

    def __init__(self) -> None:
        self._busy_s = 0.0
        self._full_s = 0.0

    def note(self, busy_s: float, full_s: float) -> None:
        """Add the times of a connection; see `ncps.aio.sending_times`."""
        self._busy_s = KEPT * self._busy_s + busy_s
        self._full_s = KEPT * self._full_s + full_s

    @property
    def are_slow(self) -> bool:
        """Whether clients are slower than the network; False before the first answer."""
        return self._busy_s > 0.0 and self._full_s >= LEAST_SHARE * self._busy_s
