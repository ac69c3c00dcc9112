"""Guess: work that no client has asked for yet, and a mark that distinguishes it.

A context variable carries the mark to all work that the guess begins. If a client joins the work,
it becomes wanted: from then on all its requests are like those of a client. Until then it uses
separate connections to upstreams, opens no circuit breaker, and logs failures at level debug.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from attrs import define


@define(eq=False)
class Guess:
    """One piece of work that no client has asked for yet.

    :ivar is_wanted: whether a client has joined it.
    """

    is_wanted: bool = False


_current: ContextVar[Guess | None] = ContextVar("guess", default=None)


def current() -> Guess | None:
    """Return the guess to which the running work belongs, wanted or not; None if there is none."""
    return _current.get()


def is_unwanted() -> bool:
    """Return whether the running work belongs to a guess that no client has joined."""
    guess = _current.get()
    return guess is not None and not guess.is_wanted


@contextmanager
def guessing() -> Iterator[Guess]:
    """Mark all work that begins within the block as one guess."""
    guess = Guess()
    token = _current.set(guess)
    try:
        yield guess
    finally:
        _current.reset(token)
