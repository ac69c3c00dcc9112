"""Extras: the objects of a binary cache beside narinfos and NARs.

log         the output of a build, by the base name of its derivation
debuginfo   a link from a build ID to the NAR and the file that has the symbols
listing     the files of a NAR, by its NarHash
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Final, Literal, Protocol, get_args

from attrs import frozen

from ncps.errors import Malformed
from ncps.nix.base32 import ALPHABET
from ncps.nix.debuginfo import is_build_id
from ncps.nix.storepath import is_base
from ncps.ports.bodies import Body

ExtraKind = Literal["log", "debuginfo", "listing"]

EXTRA_KINDS: Final[tuple[ExtraKind, ...]] = get_args(ExtraKind)

_NAR_HASH = re.compile(f"[{ALPHABET}]{{52}}")
_DERIVATION: Final = ".drv"


@frozen
class ExtraKey:
    """The name of an extra; safe in a path.

    :param is_uploaded: whether a client uploaded it; if not, ncps fetched or made it and can do so
        again. The two kinds lie in different places.
    """

    kind: ExtraKind
    name: str
    is_uploaded: bool = False

    def __attrs_post_init__(self) -> None:
        if not _fits(self.kind, self.name):
            raise Malformed(f"not the name of a {self.kind}: {self.name[:256]!r}")


def _fits(kind: ExtraKind, name: str) -> bool:
    if kind == "log":
        return name.endswith(_DERIVATION) and is_base(name)
    if kind == "debuginfo":
        return is_build_id(name)
    return _NAR_HASH.fullmatch(name) is not None


@frozen(kw_only=True)
class ExtraStat:
    """The properties of an extra in a store."""

    key: ExtraKey
    size: int
    modified: datetime


class ExtraStore(Protocol):
    """A store of extras, each of some MiB at most. A key never shows a partial extra."""

    async def open(self, key: ExtraKey) -> Body:
        """Open a whole extra. Raises NotFound if it is absent, Unavailable if that is unknown."""

    async def read(self, key: ExtraKey) -> bytes | None:
        """Return the bytes; None: surely absent. Raises Unavailable if that is unknown."""

    async def put(self, key: ExtraKey, data: bytes) -> None:
        """Write or replace an extra: atomic, durable on return.

        Raises StorageFull if nothing may be written, Unavailable if it fails now.
        """

    async def delete(self, key: ExtraKey) -> bool:
        """Remove an extra; False if it was absent. Raises Unavailable if that fails."""

    def walk(self, kind: ExtraKind, *, is_uploaded: bool) -> AsyncIterator[ExtraStat]:
        """Yield all extras of one kind, in no order."""
