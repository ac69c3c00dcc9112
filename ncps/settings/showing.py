"""The part of a refused value that a message may show: enough to find it, and no secret.

People paste secrets into wrong places: into a URL, beside it, in place of a name.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_LONGEST: Final = 60
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,15}://)(.*)", re.DOTALL)
_PARAMETERS: Final = re.compile(r"[?&#][^?&#\s=]*=\S*")
_LIKE_A_SECRET: Final = re.compile(r"(?=[A-Za-z+_=-]*\d)[A-Za-z0-9+_=-]{24,}", re.ASCII)
_KEY_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,60}", re.ASCII)


def quote(text: str) -> str:
    """Return text fit for a message: short, on one line.

    It leaves out the text before an @, the parameters of a URL, and long words that have digits.
    """
    if match := _SCHEME.fullmatch(text):
        text = match[1] + _place(match[2])
    else:
        text = _PARAMETERS.sub("?***", _without_user(text))
    text = _LIKE_A_SECRET.sub("***", text)
    return repr(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...")


def _without_user(text: str) -> str:
    """Return text that is no URL without the name and password before an @."""
    before, at, after = text.rpartition("@")
    if not at or not before or (before[-1].isspace() and ":" not in before):
        return text  # a schedule begins with @
    kept = "" if ":" in before else before[: len(before) - len(before.split()[-1])]
    return f"{kept}***@{after}"


def _place(rest: str) -> str:
    """Return the end of a URL, after its scheme, without credentials, query and fragment."""
    _, at, place = rest.rpartition("@")
    if cut := re.search("[?#]", place):
        place = f"{place[: cut.end()]}***"
    return f"***@{place}" if at else place


def quote_key(text: str) -> str:
    """Return the name of a key alone: the rest may be a secret key."""
    name, colon, _ = text.partition(":")
    return quote(f"{name}:***") if colon and _KEY_NAME.fullmatch(name) else ""


def quote_nothing(text: str) -> str:
    """Return an empty text, since people may mistake a secret of the same service for the value."""
    del text
    return ""


def existing(path: Path) -> str:
    """Name the part of a path that exists: the rest may be a secret given in place of a path."""
    for known in (path, *path.parents):
        try:
            known.lstat()
        except (OSError, ValueError):
            continue
        return str(path) if known == path else f"a file under {known}"
    return "a file"


def has_secret(value: object) -> bool:
    """Whether the value of a secret setting holds a secret: an address may have no password."""
    if isinstance(value, str | tuple):
        return bool(value)
    return getattr(value, "password", None) is not None
