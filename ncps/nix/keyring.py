"""The former signing keys of a cache, as its store keeps them: a line for each.

    2026-11-28T12:00:00+00:00 2026-12-28T12:00:00+00:00 cache.example.org-1:<base64>

The first time is that of the rotation. Until the second one the key signs beside its successor.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Self

from attrs import frozen

from ncps.errors import Malformed
from ncps.nix.keys import SecretKey

MAX_FORMER: Final = 8
"""Former keys, at most. Each adds a signature to each narinfo."""
_NUMBERED: Final = re.compile(r"(.*)-([0-9]{1,6})", re.DOTALL)


@frozen(kw_only=True)
class FormerKey:
    """A key that another one has replaced.

    :param since: the time of the replacement.
    :param until: the time of its last signature; its signatures stay valid.
    """

    key: SecretKey
    since: datetime
    until: datetime

    @classmethod
    def parse(cls, line: str) -> Self:
        """Read one line. Raises Malformed if it is no key; the message shows no part of it."""
        since, _, rest = line.partition(" ")
        until, _, key = rest.partition(" ")
        return cls(key=SecretKey.parse(key), since=_time(since), until=_time(until))

    @property
    def public(self) -> str:
        """The public half, as in `trusted-public-keys`."""
        return str(self.key.public)

    def export(self) -> str:
        """Return the line, which has the secret in it."""
        since = self.since.isoformat(timespec="seconds")
        return f"{since} {self.until.isoformat(timespec='seconds')} {self.key.export()}"


def parse_former(text: bytes) -> tuple[FormerKey, ...]:
    """Read all lines. Raises Malformed if they are something else."""
    lines = text.decode("ascii", "replace").splitlines()
    if len(lines) > MAX_FORMER:
        raise Malformed(f"more than {MAX_FORMER} former keys")
    return tuple(map(FormerKey.parse, lines))


def render_former(keys: Sequence[FormerKey]) -> bytes:
    """Return all lines, which have secrets in them."""
    return "".join(f"{key.export()}\n" for key in keys).encode("ascii")


def next_name(name: str) -> str:
    """Return another name for the next key: Nix trusts only one key for each name.

    After `cache.example.org` comes `cache.example.org-2`, then `cache.example.org-3`.
    """
    found = _NUMBERED.fullmatch(name)
    return f"{name}-2" if found is None else f"{found[1]}-{int(found[2]) + 1}"


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Malformed("a former key has an invalid time") from None
    if found.tzinfo is None:
        raise Malformed("a former key has a time without its zone")
    return found
