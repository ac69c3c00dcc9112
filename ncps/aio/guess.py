"""Guess: work that no client has asked for yet, and how other work tells it from a client's.

The guess goes with everything that is begun for it, in a context variable, as a trail does. A
client that joins the work makes it wanted, and from then on it is like any other: also the
requests of it that are still to come. Until then it has places of its own at the upstreams, opens
no circuit breaker, and writes nothing above level debug about a failure.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from attrs import define


@define(eq=False)
class Guess:
    """One piece of such work.

    :ivar is_wanted: whether a client has joined it.
    """

    is_wanted: bool = False


_current: ContextVar[Guess | None] = ContextVar("guess", default=None)


def current() -> Guess | None:
    """The guess that the work which runs now is a part of, wanted or not; None if it is none."""
    return _current.get()


def is_unwanted() -> bool:
    """Whether the work that runs now is a guess, and no client has joined it."""
    guess = _current.get()
    return guess is not None and not guess.is_wanted


@contextmanager
def guessing() -> Iterator[Guess]:
    """Make a guess of all work that is begun within the block."""
    guess = Guess()
    token = _current.set(guess)
    try:
        yield guess
    finally:
        _current.reset(token)
