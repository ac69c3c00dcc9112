"""A lock and an event for each name, kept only while a coroutine uses the name."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define
from twisted.internet.defer import Deferred, DeferredLock

Release = Callable[[], None]
"""Releases a lock; later calls do nothing."""


@define(eq=False)
class _Entry:
    lock: DeferredLock
    users: int = 0


class KeyedLock:
    """A lock for each name; coroutines get it in the order of their requests."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    async def acquire(self, name: str) -> Release:
        """Wait for the lock of a name; return the function that releases it. Cancellable."""
        entry = self._entries.setdefault(name, _Entry(DeferredLock()))
        entry.users += 1
        try:
            await entry.lock.acquire()
        except BaseException:
            self._left(name, entry)
            raise
        is_released = False

        def release() -> None:
            nonlocal is_released
            if not is_released:
                is_released = True
                entry.lock.release()
                self._left(name, entry)

        return release

    def _left(self, name: str, entry: _Entry) -> None:
        entry.users -= 1
        if not entry.users:
            del self._entries[name]


class KeyedEvent:
    """An event for each name that a coroutine of this process waits for.

    A waiter calls `watch` before it checks whether it must wait. So it does not miss an event
    between the check and the wait. It checks again after each event, so needless events do no harm.
    """

    def __init__(self) -> None:
        self._watched: dict[str, Deferred[None]] = {}

    def __len__(self) -> int:
        return len(self._watched)

    def watch(self, name: str) -> Deferred[None]:
        """Return a Deferred that fires at the next event of the name; one watcher for each name."""
        assert name not in self._watched
        event: Deferred[None] = Deferred()
        self._watched[name] = event
        return event

    def forget(self, name: str) -> None:
        """End the watch of a name, whether its event has fired or not."""
        self._watched.pop(name, None)

    def set(self, name: str) -> None:
        """Fire the event of a name, if a waiter watches it."""
        event = self._watched.get(name)
        if event is not None and not event.called:
            event.callback(None)

    def set_all(self) -> None:
        """Fire the events of all names."""
        for name in list(self._watched):
            self.set(name)
