"""The translation of errors of the operating system into those of `ncps.errors`."""

from __future__ import annotations

import errno
from typing import Final

from ncps.errors import NcpsError, StorageFull, Unavailable

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_NOT_OURS = frozenset({errno.EACCES, errno.EPERM})


class _Translating:
    """A block whose OSErrors become errors of ours; a generator would cost four times more.

    :param what: the name of the object, for the message.
    """

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what: Final = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, OSError):
            raise self._translated(error) from error

    def _translated(self, error: OSError) -> NcpsError:
        raise NotImplementedError


class _Reading(_Translating):
    __slots__ = ()

    def _translated(self, error: OSError) -> NcpsError:
        return Unavailable(f"{self._what} cannot be read: {_reason(error)}")


class _Writing(_Translating):
    __slots__ = ()

    def _translated(self, error: OSError) -> NcpsError:
        message = f"{self._what} cannot be written: {_reason(error)}"
        if error.errno in _FULL or error.errno in _NOT_OURS:
            return StorageFull(message)
        return Unavailable(message)


def reading(what: str) -> _Translating:
    """Turn every OSError into Unavailable; catch the absence of the file inside the block.

    :param what: the name of the object, for the message.
    """
    return _Reading(what)


def writing(what: str) -> _Translating:
    """Turn an OSError into StorageFull (no room, read-only, no permission) or Unavailable.

    :param what: the name of the object, for the message.
    """
    return _Writing(what)


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
