"""Removals: paths that are removed from the catalog, and blocked paths, which never come back."""

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
"""Blocked paths at one time, at most."""


class Blocked(NotFound):
    """The path or NAR is blocked: this cache never serves it. Clients get 404."""


@frozen(kw_only=True)
class Block:
    """A path that this cache never fetches, accepts or serves.

    :param digest: hash part of the store path.
    :param name: the rest of its base name; empty if it is not known.
    :param hashes: of the NAR and of its files; bytes with these hashes are stored under no name.
    """

    digest: str
    name: str = ""
    hashes: tuple[Hash, ...] = ()
    blocked_at: datetime


@frozen(kw_only=True)
class Erased:
    """The records that were deleted.

    :param digests: of the deleted narinfos.
    :param nars: NARs whose bytes must be removed now, with the digests of their narinfos.
    :param keys: the names of all NARs whose record or narinfos have changed.
    """

    digests: tuple[str, ...] = ()
    nars: tuple[EvictedNar, ...] = ()
    keys: tuple[NarKey, ...] = field(default=())


class Removals(Protocol):
    """The removal of records; it is durable: a loss of power does not bring them back.

    `Catalog.add_narinfo` and `Catalog.mark_stored` raise Blocked for a blocked path, and for each
    path whose NAR has one of its hashes. Methods raise Unavailable if the database is away.
    """

    async def representations(self, key: NarKey) -> Sequence[NarRecord]:
        """Return the record of a NAR and of all NARs with its NarHash, in the order of keys."""

    async def discard(self, keys: Collection[NarKey]) -> list[EvictedNar]:
        """Record that the bytes of NARs are gone; return those that were stored."""

    async def erase(self, digests: Collection[str], *, keeps_nars: bool = False) -> Erased:
        """Forget narinfos, and each of their NARs that no other narinfo names.

        A file and its twins are removed together or not at all. Call it with at most a few hundred
        digests, because it is one transaction.

        :param keeps_nars: whether all NARs stay.
        """

    async def block(self, blocks: Sequence[Block]) -> Erased:
        """Block paths, and forget their narinfos and NARs, also those of paths with the same NAR.

        A path that is blocked already gets the hashes as well. Raises Refused if more than
        `MAX_BLOCKED` paths would be blocked.
        """

    async def unblock(self, digest: str) -> bool:
        """End the block of a path; False if it was not blocked."""

    async def blocked(self) -> list[Block]:
        """Return all blocked paths, by their hash part."""

    async def is_blocked(self, digest: str) -> bool:
        """Return whether the path with this hash part is blocked."""

    async def is_blocked_file(self, file_hash: Hash) -> bool:
        """Return whether this hash is that of a blocked path's NAR or of one of its files."""
