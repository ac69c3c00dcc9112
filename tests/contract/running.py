"""The way in which contracts run: as `async def` tests, with a reactor or without one."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

if TYPE_CHECKING:
    Base = SynchronousTestCase
else:
    Base = object

E = TypeVar("E", bound=BaseException)
T = TypeVar("T", bound=type[SynchronousTestCase])


class Contract(Base):
    """Mixin of all contracts; the concrete class is a `TestCase` of one kind or the other."""

    async def assert_raises(self, expected: type[E], awaitable: Awaitable[object]) -> E:
        """Await, and return the error that must be raised."""
        try:
            result = await awaitable
        except expected as error:
            return error
        raise self.failureException(f"{expected.__name__} was not raised, result: {result!r}")


def start(coroutine: Coroutine[Any, Any, Any]) -> Deferred[Any]:
    """Start a coroutine, and run it up to its first wait."""
    return Deferred.fromCoroutine(coroutine)


def synchronously(cls: T) -> T:
    """Make the `async def` tests of a SynchronousTestCase ordinary ones; they must not wait."""
    for name in [name for name in dir(cls) if name.startswith("test_")]:
        method = getattr(cls, name)
        if inspect.iscoroutinefunction(method):
            setattr(cls, name, _finished(method))
    return cls


def _finished(method: Callable[[Any], Coroutine[Any, Any, None]]) -> Callable[[Any], None]:
    @wraps(method)
    def run(self: SynchronousTestCase) -> None:
        self.successResultOf(start(method(self)))

    return run
