"""Trailing: a check of the NAR inside a file, which ends early where it is slower than the bytes.

To unpack a NAR takes longer than to copy its file: twice as long for zstd, twenty times for xz. So
the file does not wait for the check. If the bytes come from far away, and a core is idle, the check
ends with the file.

The check is given up in two cases: if it falls behind, and if its thread waits for a core as long
as it works. In the second case the check slows the copies down, so it would never fall behind them.
After that, FileHash decides, and a background job checks the NAR inside later.
"""

from __future__ import annotations

from math import inf
from typing import Final

from ncps.nix.narcheck import NarDigest

LAG_S: Final = 0.1
"""Seconds of work that the check may be behind; the last bytes of the file wait for that work."""

MOST_BEHIND: Final = 4 * 1024 * 1024
"""Bytes of a file that may wait in memory for the check."""

MOST_WAIT: Final = 2.0
"""The check may take this many times its processor time by the clock."""

SURE_S: Final = 0.05
"""Seconds of processor time from which on that ratio is compared."""


def is_crowded(work_s: float, elapsed_s: float) -> bool:
    """Return whether the check waited for a core too long, so that no core is idle.

    :param work_s: processor time of the check.
    :param elapsed_s: time by the clock for the same work.
    """
    return work_s >= SURE_S and elapsed_s > MOST_WAIT * work_s


def is_too_late(behind: int, size: int | None, cost_s: float) -> bool:
    """Return whether the bytes come faster than a core can check them.

    :param behind: bytes that have come and are not checked.
    :param size: of the whole file; None: unknown.
    :param cost_s: estimated seconds for the check of the whole file; infinite if unknown.
    """
    if behind > MOST_BEHIND:
        return True
    return cost_s != inf and bool(size) and behind * cost_s > LAG_S * (size or 0)


class TrailingDigest:
    """A digest that a file does not wait for; see the module. It may be given up at any time.

    :param size: bytes of the file, if known.
    :ivar is_given_up: whether the check was ended without a result.
    """

    def __init__(self, digest: NarDigest, size: int | None) -> None:
        self.is_given_up = False
        self._digest = digest
        self._size = size
        self._work_s = self._elapsed_s = 0.0

    @property
    def cost_s(self) -> float:
        """See `NarDigest`."""
        return self._digest.cost_s

    def feed(self, data: bytes) -> None:
        """Check the next bytes. Raises Corrupt if they are wrong."""
        if not self.is_given_up:
            self._digest.feed(data)

    def took(self, work_s: float, elapsed_s: float) -> None:
        """Add the time that the last bytes took; give up if no core is idle.

        :param work_s: seconds of processor time, at most `elapsed_s`.
        :param elapsed_s: seconds by the clock.
        """
        self._work_s += work_s
        self._elapsed_s += elapsed_s
        self.is_given_up = self.is_given_up or is_crowded(self._work_s, self._elapsed_s)
        if self._work_s >= SURE_S:
            self._work_s = self._elapsed_s = 0.0

    def fell_behind(self, behind: int) -> bool:
        """Give up if the check is too far behind; return whether it is given up."""
        self.is_given_up = self.is_given_up or is_too_late(behind, self._size, self.cost_s)
        return self.is_given_up
