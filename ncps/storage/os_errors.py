"""Translates the errors of the operating system into those of `ncps.errors`."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from ncps.errors import StorageFull, Unavailable

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_NOT_OURS = frozenset({errno.EACCES, errno.EPERM})


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn every OSError into Unavailable; absence must have been caught inside.

    :param what: the object, for the message.
    """
    try:
        yield
    except OSError as error:
        raise Unavailable(f"{what} cannot be read: {_reason(error)}") from error


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Turn an OSError into StorageFull (no room, read-only, no leave) or Unavailable."""
    try:
        yield
    except OSError as error:
        message = f"{what} cannot be written: {_reason(error)}"
        if error.errno in _FULL or error.errno in _NOT_OURS:
            raise StorageFull(message) from error
        raise Unavailable(message) from error


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
