"""Maps and sets in memory with limits of number, size or time; the oldest entries go first.

`BoundedMap` limits the total size. `RecentMap` and `RecentSet` also forget entries after a time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from math import inf
from typing import Final, Generic, TypeVar

from twisted.internet.interfaces import IReactorTime

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_NEVER: Final = (-inf, None)


def _one(_: object) -> int:
    return 1


class BoundedMap(Generic[K, V]):
    """A map with a limit of its total size.

    :param max_size: the limit; 0 holds nothing.
    :param size_of: returns the size of a value, which must not change; the default counts values.
    :param forgotten: called with each value that is removed or replaced.
    """

    def __init__(
        self,
        max_size: int,
        *,
        size_of: Callable[[V], int] = _one,
        forgotten: Callable[[V], object] = _one,
    ) -> None:
        self.size = 0
        self._max_size = max_size
        self._size_of = size_of
        self._forgotten = forgotten
        self._held: OrderedDict[K, V] = OrderedDict()
        self.get = self._held.get
        """Return the value of a key; None if there is none."""

    def __len__(self) -> int:
        return len(self._held)

    def put(self, key: K, value: V) -> None:
        """Store a value, in place of an older one of the same key."""
        self.forget(key)
        self._held[key] = value
        self.size += self._size_of(value)
        while self._held and self.size > self._max_size:
            self.forget(next(iter(self._held)))

    def renew(self, key: K) -> None:
        """Make a key the newest; harmless if it is not there."""
        if key in self._held:
            self._held.move_to_end(key)

    def age(self, key: K) -> None:
        """Make a key the oldest, the first to go; harmless if it is not there."""
        if key in self._held:
            self._held.move_to_end(key, last=False)

    def has_room_for(self, value: V) -> bool:
        """Return whether a value of a new key fits without removing another value."""
        return self.size + self._size_of(value) <= self._max_size

    def forget(self, key: K) -> None:
        """Remove a key; harmless if it is not there."""
        if key in self._held:
            value = self._held.pop(key)
            self.size -= self._size_of(value)
            self._forgotten(value)

    def clear(self) -> None:
        """Remove all keys."""
        for key in list(self._held):
            self.forget(key)

    def take_all(self) -> list[V]:
        """Remove all keys and return their values, without calls of `forgotten`."""
        values = list(self._held.values())
        self._held.clear()
        self.size = 0
        return values


class RecentMap(Generic[K, V]):
    """A map that keeps each value for `ttl_s` seconds.

    :param ttl_s: 0 keeps nothing.
    :param max_entries: the limit of the number of values.
    """

    def __init__(self, clock: IReactorTime, *, ttl_s: float, max_entries: int) -> None:
        self._clock = clock
        self._ttl_s = ttl_s
        self._held: BoundedMap[K, tuple[float, V]] = BoundedMap(max_entries)
        self.forget = self._held.forget
        self.clear = self._held.clear

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: K) -> V | None:
        """Return the value of a key; None if there is none, or if it is too old."""
        until, value = self._held.get(key, _NEVER)
        if until > self._clock.seconds():
            return value
        self._held.forget(key)
        return None

    def put(self, key: K, value: V) -> None:
        """Store a value, in place of an older one of the same key; its time begins now."""
        if self._ttl_s > 0:
            self._held.put(key, (self._clock.seconds() + self._ttl_s, value))


class RecentSet:
    """A set that keeps each key for a time; its parameters are those of `RecentMap`."""

    def __init__(self, clock: IReactorTime, *, ttl_s: float, max_entries: int) -> None:
        self._held: RecentMap[Hashable, bool] = RecentMap(
            clock, ttl_s=ttl_s, max_entries=max_entries
        )
        self.forget = self._held.forget
        self.clear = self._held.clear

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, key: Hashable) -> bool:
        return self._held.get(key) is not None

    def add(self, key: Hashable) -> None:
        """Add a key; its time begins now."""
        self._held.put(key, True)
