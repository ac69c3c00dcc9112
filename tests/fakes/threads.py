"""Threads for tests: `HeldThreads` run what they are given when the test says so."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred

P = ParamSpec("P")
R = TypeVar("R")


class InlineThreads:
    """Runs every call at once."""

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return function(*args, **kwargs)


class NotingThreads:
    """Runs every call at once, and knows whether one runs."""

    is_running = False

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        self.is_running = True
        try:
            return function(*args, **kwargs)
        finally:
            self.is_running = False


class HeldThreads:
    """Holds calls until `release`."""

    def __init__(self) -> None:
        self._held: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def __len__(self) -> int:
        return len(self._held)

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        result: Deferred[R] = Deferred()
        self._held.append((partial(function, *args, **kwargs), result))
        return await result

    def release(self, count: int | None = None) -> None:
        """Run `count` of the held calls; without it all, also those that come meanwhile."""
        while self._held and count != 0:
            call, result = self._held.pop(0)
            count = None if count is None else count - 1
            try:
                value = call()
            except Exception:  # noqa: BLE001 - handed on, as a thread pool does
                result.errback()
            else:
                result.callback(value)
