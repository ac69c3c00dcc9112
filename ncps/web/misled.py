"""Misled: clients that have wrong bytes of a NAR and must not resume after them.

Only the end of a file shows that its bytes were wrong, and by then a client may have most of them.
ncps cuts its connection. The client cannot see why, so it would ask for the rest, and append a
right end to a wrong beginning. So, for a while, it gets the whole file instead of a part.

A client is known by its address, which others may share, and by the place of the cut: a client that
resumes has at most the bytes that it was sent, and hardly fewer than it has acknowledged. A request
for the whole file changes nothing: it may come from another client at the same address.
"""

from __future__ import annotations

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from ncps.aio.recent import RecentMap

TTL_S = 60.0
"""Seconds for which a cut is remembered; clients that resume by themselves do so within seconds."""

MOST = 10_000
"""Pairs of client and file; the oldest are dropped first."""

SLACK = 256 * 1024
"""Bytes that a client may have acknowledged and not kept."""


@frozen
class _Cut:
    """The positions from which a client may resume a file."""

    low: int
    high: int


class Misled:
    """The clients that have wrong bytes of a file, remembered for a while."""

    def __init__(self, clock: IReactorTime, *, max_entries: int = MOST) -> None:
        self._cuts: RecentMap[tuple[str, str], _Cut] = RecentMap(
            clock, ttl_s=TTL_S, max_entries=max_entries
        )

    def __len__(self) -> int:
        return len(self._cuts)

    def add(self, client: str, file: str, sent: int, unsent: int) -> None:
        """Remember a client that is cut off with wrong bytes.

        :param sent: the position in the file up to which bytes were written to its connection.
        :param unsent: the number of these bytes that it has not acknowledged.
        """
        low, high = max(0, sent - unsent - SLACK), sent
        other = self._cuts.get((client, file))
        if other is not None:  # perhaps another client at this address
            low, high = min(low, other.low), max(high, other.high)
        self._cuts.put((client, file), _Cut(low, high))

    def has(self, client: str, file: str, first: int) -> bool:
        """Whether a client that asks for a file from `first` on has wrong bytes before `first`."""
        cut = self._cuts.get((client, file))
        return cut is not None and cut.low <= first <= cut.high
