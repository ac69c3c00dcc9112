"""Misled: clients that have wrong bytes of a NAR and must not go on behind them.

Only the end of a file tells that its bytes were wrong, and by then a client may have most of them.
Its connection is cut, which looks to it like any other cut: it asks for the rest, and gets a right
end to a wrong beginning. So it gets no part of that file for a while, but the whole.

A client is known by its address alone, which others may share, and by where it was cut: a client
that resumes has no more bytes than it was sent, and hardly less than it has acknowledged. A request
for the whole takes nothing back: another client at the same address may have sent it.
"""

from __future__ import annotations

from collections import OrderedDict

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

TTL_S = 60.0
"""How long it is remembered; clients that resume by themselves do so within seconds."""

MOST = 10_000
"""Pairs of client and file; the oldest go first."""

SLACK = 256 * 1024
"""Bytes that a client may have acknowledged and not kept."""


@frozen
class _Cut:
    """Where a client may take up a file."""

    low: int
    high: int
    until: float


class Misled:
    """See the module."""

    def __init__(
        self, clock: IReactorTime, *, ttl_s: float = TTL_S, max_entries: int = MOST
    ) -> None:
        self._clock = clock
        self._ttl_s = ttl_s
        self._max_entries = max_entries
        self._cuts: OrderedDict[tuple[str, str], _Cut] = OrderedDict()

    def __len__(self) -> int:
        return len(self._cuts)

    def add(self, client: str, file: str, sent: int, unsent: int) -> None:
        """Note that a client is cut off with wrong bytes.

        :param sent: how far the file was handed to its connection, in bytes from the beginning.
        :param unsent: bytes of that which it has not acknowledged.
        """
        key, now = (client, file), self._clock.seconds()
        low, high = max(0, sent - unsent - SLACK), sent
        other = self._cuts.pop(key, None)
        if other is not None and other.until > now:  # somebody else at this address
            low, high = min(low, other.low), max(high, other.high)
        self._cuts[key] = _Cut(low, high, now + self._ttl_s)
        while len(self._cuts) > self._max_entries:
            self._cuts.popitem(last=False)

    def has(self, client: str, file: str, first: int) -> bool:
        """Whether a client that asks for a file from `first` on has wrong bytes before that."""
        cut = self._cuts.get((client, file))
        if cut is None:
            return False
        if cut.until <= self._clock.seconds():
            del self._cuts[client, file]
            return False
        return cut.low <= first <= cut.high
