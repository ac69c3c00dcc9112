"""The graph of paths: the references of recorded narinfos, read in batches."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, Protocol

from attrs import frozen

from ncps.nix.hashes import Hash
from ncps.nix.narurl import NarKey

BATCH: Final = 200
"""Paths that one transaction reads."""


@frozen(kw_only=True)
class PathFacts:
    """The facts of a recorded store path for the walk of a closure.

    :param base: base name of the store path.
    :param references: hash parts of the paths that it refers to, without its own.
    :param nar: name of its NAR.
    :param nar_size: bytes of the NAR, uncompressed.
    :param stored_size: bytes of the stored NAR; None while nothing is stored.
    """

    base: str
    references: tuple[str, ...]
    nar: NarKey
    nar_hash: Hash | None
    nar_size: int | None
    stored_size: int | None


class PathGraph(Protocol):
    """The recorded paths as a graph. Raises Unavailable if the database is away."""

    async def among(self, digests: Collection[str]) -> Mapping[str, PathFacts]:
        """Return the facts of the recorded ones of some paths.

        Each transaction reads at most `BATCH` paths.
        """

    async def after(self, digest: str, limit: int = BATCH) -> Mapping[str, PathFacts]:
        """Return the facts of the recorded paths that follow a hash part, in their order.

        :param digest: empty for the first ones.
        """
