"""Keys that a cache signed with before, as a store keeps them: one line each.

    2026-11-28T12:00:00+00:00 2026-12-28T12:00:00+00:00 cache.example.org-1:<base64>

The times are those of the rotation and of the end of the overlap, until which the key signs beside
the present one.
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
"""Keys that are remembered. Each costs a signature for a narinfo."""
_NUMBERED: Final = re.compile(r"(.*)-([0-9]{1,6})", re.DOTALL)


@frozen(kw_only=True)
class FormerKey:
    """A key that another one has replaced.

    :param since: when it was replaced.
    :param until: when it signs no more; what it has signed stays signed.
    """

    key: SecretKey
    since: datetime
    until: datetime

    @classmethod
    def parse(cls, line: str) -> Self:
        """Read one line. Raises Malformed if it is no key; the message shows nothing of it."""
        since, _, rest = line.partition(" ")
        until, _, key = rest.partition(" ")
        return cls(key=SecretKey.parse(key), since=_time(since), until=_time(until))

    @property
    def public(self) -> str:
        """Its public half, as `trusted-public-keys` has it."""
        return str(self.key.public)

    def export(self) -> str:
        """Write the line, secret and all."""
        since = self.since.isoformat(timespec="seconds")
        return f"{since} {self.until.isoformat(timespec='seconds')} {self.key.export()}"


def parse_former(text: bytes) -> tuple[FormerKey, ...]:
    """Read all lines. Raises Malformed if they are something else."""
    lines = text.decode("ascii", "replace").splitlines()
    if len(lines) > MAX_FORMER:
        raise Malformed(f"more than {MAX_FORMER} former keys")
    return tuple(map(FormerKey.parse, lines))


def render_former(keys: Sequence[FormerKey]) -> bytes:
    """Write all lines."""
    return "".join(f"{key.export()}\n" for key in keys).encode("ascii")


def next_name(name: str) -> str:
    """Return the name for the key that follows: Nix trusts one key of a name, so it is another.

    `cache.example.org` is followed by `cache.example.org-2`, and that by `cache.example.org-3`.
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
