"""Removals: paths that leave the catalog before their bytes go, and paths that never come back."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final, Protocol

from attrs import field, frozen

from ncps.errors import NotFound
from ncps.nix.hashes import Hash
from ncps.nix.narurl import NarKey
from ncps.ports.catalog import NarRecord
from ncps.ports.inventory import EvictedNar

MAX_BLOCKED: Final = 10_000
"""Most paths that are blocked at one time."""


class Blocked(NotFound):
    """The path or NAR is blocked: this cache never has it. Clients: 404."""


@frozen(kw_only=True)
class Block:
    """A path that this cache never has.

    :param digest: hash part of the store path.
    :param name: the rest of its base name; empty if it is not known.
    :param hashes: of the NAR and of its files: their bytes are not kept under any name.
    """

    digest: str
    name: str = ""
    hashes: tuple[Hash, ...] = ()
    blocked_at: datetime


@frozen(kw_only=True)
class Erased:
    """Records that are gone.

    :param digests: of narinfos.
    :param nars: those whose bytes are to be removed, with the digests of their narinfos.
    :param keys: the names of all NARs whose record or narinfos have changed.
    """

    digests: tuple[str, ...] = ()
    nars: tuple[EvictedNar, ...] = ()
    keys: tuple[NarKey, ...] = field(default=())


class Removals(Protocol):
    """Removes records, durably: a loss of power does not bring them back.

    While a path is blocked, `Catalog.add_narinfo` and `Catalog.mark_stored` raise Blocked for it,
    and for each path whose NAR has one of its hashes. Raises Unavailable if the database is away.
    """

    async def representations(self, key: NarKey) -> Sequence[NarRecord]:
        """Return the record of a NAR and of all NARs with its NarHash, in the order of keys."""

    async def discard(self, keys: Collection[NarKey]) -> list[EvictedNar]:
        """Record that the bytes of NARs are gone; return those that were stored."""

    async def erase(self, digests: Collection[str], *, keeps_nars: bool = False) -> Erased:
        """Forget narinfos, and each of their NARs that no other narinfo names.

        A file and those that ncps has made from it go or stay together. At most a few hundred at
        once: all of it is one transaction.

        :param keeps_nars: whether all NARs stay.
        """

    async def block(self, blocks: Sequence[Block]) -> Erased:
        """Block paths, and forget their narinfos and NARs, also as other paths have them.

        A path that is blocked already gets the hashes, too. Raises Refused if more than
        `MAX_BLOCKED` would be.
        """

    async def unblock(self, digest: str) -> bool:
        """Let a path be fetched again; False if it was not blocked."""

    async def blocked(self) -> list[Block]:
        """Return all blocked paths, by their hash part."""

    async def is_blocked(self, digest: str) -> bool:
        """Whether a path is blocked by its hash part."""

    async def is_blocked_file(self, file_hash: Hash) -> bool:
        """Whether bytes with this hash are those of a blocked path, as NAR or as its file."""
