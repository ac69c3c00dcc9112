"""Misled: clients that have wrong bytes of a NAR and must not go on behind them.

Only the end of a file shows that its bytes were wrong, and by then a client may have most of them.
Its connection is cut, which looks to it like any other cut: it would ask for the rest, and put a
right end to a wrong beginning. So it gets no part of that file for a while, but the whole.

A client is known by its address alone, which others may share, and by where it was cut: a client
that resumes has no more bytes than it was sent, and hardly less than it has acknowledged. A request
for the whole takes nothing back: another client at the same address may have sent it.
"""

from __future__ import annotations

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from ncps.aio.recent import RecentMap

TTL_S = 60.0
"""How long a cut is remembered; clients that resume by themselves do so within seconds."""

MOST = 10_000
"""Pairs of client and file; the oldest go first."""

SLACK = 256 * 1024
"""Bytes that a client may have acknowledged and not kept."""


@frozen
class _Cut:
    """Where a client may take up a file."""

    low: int
    high: int


class Misled:
    """Remembers for a while which clients have wrong bytes of which file."""

    def __init__(self, clock: IReactorTime, *, max_entries: int = MOST) -> None:
        self._cuts: RecentMap[tuple[str, str], _Cut] = RecentMap(
            clock, ttl_s=TTL_S, max_entries=max_entries
        )

    def __len__(self) -> int:
        return len(self._cuts)

    def add(self, client: str, file: str, sent: int, unsent: int) -> None:
        """Note that a client is cut off with wrong bytes.

        :param sent: how far the file was handed to its connection, in bytes from the beginning.
        :param unsent: bytes of that which it has not acknowledged.
        """
        low, high = max(0, sent - unsent - SLACK), sent
        other = self._cuts.get((client, file))
        if other is not None:  # somebody else at this address
            low, high = min(low, other.low), max(high, other.high)
        self._cuts.put((client, file), _Cut(low, high))

    def has(self, client: str, file: str, first: int) -> bool:
        """Whether a client that asks for a file from `first` on has wrong bytes before that."""
        cut = self._cuts.get((client, file))
        return cut is not None and cut.low <= first <= cut.high
