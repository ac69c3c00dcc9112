"""Keys that are remembered for a while: bounded in number, the oldest forgotten first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from twisted.internet.interfaces import IReactorTime


class RecentSet:
    """Remembers keys.

    :param ttl_s: for how long, in seconds; 0 remembers nothing.
    :param max_entries: the oldest goes first.
    """

    def __init__(self, clock: IReactorTime, *, ttl_s: float, max_entries: int) -> None:
        self._clock = clock
        self._ttl_s = ttl_s
        self._max_entries = max_entries
        self._until: OrderedDict[Hashable, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    def __contains__(self, key: Hashable) -> bool:
        until = self._until.get(key)
        if until is None:
            return False
        if until <= self._clock.seconds():
            del self._until[key]
            return False
        return True

    def add(self, key: Hashable) -> None:
        """Remember a key from now on."""
        if self._ttl_s <= 0 or self._max_entries <= 0:
            return
        self._until[key] = self._clock.seconds() + self._ttl_s
        self._until.move_to_end(key)
        while len(self._until) > self._max_entries:
            self._until.popitem(last=False)

    def clear(self) -> None:
        """Forget all keys."""
        self._until.clear()

    def forget(self, key: Hashable) -> None:
        """Forget a key; harmless if it is not remembered."""
        self._until.pop(key, None)
