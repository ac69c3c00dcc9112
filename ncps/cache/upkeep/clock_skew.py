"""Skew: whether the clocks of this machine and of the database, which all replicas share, agree.

Correctness does not depend on it: the lease backend's own clock times the leases, or clocks that
are never compared. But the times of use, which order eviction, are wrong by the difference, and so
are the expiry times of signed URLs into the bucket.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from twisted.logger import Logger

from ncps.errors import NcpsError
from ncps.ports import Catalog

TOLERATED_S = 10.0
"""Seconds by which the two clocks may differ without a warning."""


class Skew:
    """Compares the two clocks.

    :param wall: this machine's clock, in seconds since 1970.
    :ivar trouble: the trouble at the last look; empty if there was none.
    """

    _log = Logger()

    def __init__(self, catalog: Catalog, wall: Callable[[], float] = time.time) -> None:
        self._catalog = catalog
        self._wall = wall
        self.trouble = ""

    async def look(self) -> None:
        """Compare the clocks now; change nothing if the database does not answer."""
        before = self._now()
        try:
            theirs = await self._catalog.time()
        except NcpsError:
            return
        # The database read its clock at an unknown time in between: only a sure difference counts.
        self._found(
            ahead_s=(before - theirs).total_seconds(),
            behind_s=(theirs - self._now()).total_seconds(),
        )

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._wall(), UTC)

    def _found(self, *, ahead_s: float, behind_s: float) -> None:
        was_wrong, self.trouble = bool(self.trouble), ""
        if max(ahead_s, behind_s) > TOLERATED_S:
            where = "ahead of" if ahead_s > behind_s else "behind"
            self.trouble = (
                f"the clock of this machine is {max(ahead_s, behind_s):.0f} s {where} that of the"
                " database: have both set by NTP"
            )
        if self.trouble and not was_wrong:
            self._log.warn(
                "{trouble}; until then the times of last use are wrong by as much",
                trouble=self.trouble,
            )
        elif was_wrong and not self.trouble:
            self._log.info("the clock of this machine is right again")
