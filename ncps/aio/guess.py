"""Guess: work that no client has asked for yet, and a mark that distinguishes it.

A context variable carries the mark to all work that the guess begins. If a client joins the work,
it becomes wanted: from then on all its requests are like those of a client. Until then it uses
separate connections to upstreams, opens no circuit breaker, and logs failures at level debug.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf

from attrs import define


@define(eq=False)
class Guess:
    """One piece of work that no client has asked for yet.

    :param most: bytes of a file that it may fetch, at most; a narinfo may say a false size.
    :ivar is_wanted: whether a client has joined it.
    :ivar is_needless: whether another process was faster.
    """

    most: float = inf
    is_wanted: bool = False
    is_needless: bool = False


_current: ContextVar[Guess | None] = ContextVar("guess", default=None)


def current() -> Guess | None:
    """Return the guess to which the running work belongs, wanted or not; None if there is none."""
    return _current.get()


def is_unwanted() -> bool:
    """Return whether the running work belongs to a guess that no client has joined."""
    guess = _current.get()
    return guess is not None and not guess.is_wanted


def is_beyond(size: int) -> bool:
    """Return whether the running work is an unwanted guess that may not fetch this many bytes."""
    guess = _current.get()
    return guess is not None and not guess.is_wanted and size > guess.most


def note_needless() -> None:
    """Note, if the running work is a guess, that another process was faster."""
    if (guess := _current.get()) is not None:
        guess.is_needless = True


@contextmanager
def guessing(most: float = inf) -> Iterator[Guess]:
    """Mark all work that begins within the block as one guess.

    :param most: see `Guess`.
    """
    guess = Guess(most)
    token = _current.set(guess)
    try:
        yield guess
    finally:
        _current.reset(token)
