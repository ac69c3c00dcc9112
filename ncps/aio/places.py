"""Advice for an operator: how to make the directory of a setting usable."""

from __future__ import annotations

import errno
import os
import pwd
from typing import Final

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_DIRECTORY: Final = frozenset({errno.EEXIST, errno.ENOTDIR})


def remedy(setting: str, error: BaseException | None) -> str:
    """Say how to make the directory of a setting usable.

    :param error: the error of the directory, if it is an OSError.
    """
    code = error.errno if isinstance(error, OSError) else None
    if code in _NO_DIRECTORY:
        return f"{setting} should name a directory"
    if code in _FULL:
        way = "make room there"
    elif code == errno.EROFS:
        way = "mount its file system for writing"
    else:
        way = f"make it a directory that the user {user_name(os.geteuid())} may write to"
    return f"{way}, or name another one by {setting}"


def user_name(number: int) -> str:
    """Return the name of a user, or the number if the machine knows no name."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
