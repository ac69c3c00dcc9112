"""Realisations: the index of those that are served, and the copies of uploaded ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Final, Protocol

from attrs import frozen

from ncps.nix.realisation import Realisation, RealisationKey

UPLOAD: Final = "upload"
"""The voucher of a realisation without a known signature: its sender had the right to upload."""


@frozen(kw_only=True)
class RealisationEntry:
    """A realisation as it is served, and its origin.

    :param upstream: base URL of the upstream it came from, without credentials; empty if a client
        sent it.
    :param is_uploaded: whether a client sent it.
    :param verified_by: the public key that vouched for it (`name:base64`), or `UPLOAD`; empty if
        nothing vouched.
    :param signed_by: the public key of ncps's own signature in it; empty: it has none.
    """

    realisation: Realisation
    upstream: str = ""
    is_uploaded: bool = False
    verified_by: str = ""
    signed_by: str = ""
    fetched_at: datetime
    last_used_at: datetime

    @property
    def key(self) -> RealisationKey:
        """The key of the realisation."""
        return self.realisation.key


class Realisations(Protocol):
    """The index that requests use; each method is one transaction.

    Methods raise Unavailable if the database is away.
    """

    async def find(self, key: RealisationKey) -> RealisationEntry | None:
        """Return the realisation under a key, or None."""

    async def put(self, entry: RealisationEntry, before: RealisationEntry | None) -> bool:
        """Insert or replace a realisation; an upload survives a loss of power on return.

        The last use stays. Raises StorageFull if nothing can be written.

        :param before: the value that `find` returned; if the index has another one now, write
            nothing and return False.
        """

    async def forget(self, key: RealisationKey) -> bool:
        """Delete the realisation under a key; False if there is none.

        The deletion survives a loss of power on return.
        """

    async def uploaded(self) -> tuple[int, int]:
        """Return the number of uploaded realisations, and of their characters; reads all rows."""

    async def touch(self, uses: Mapping[RealisationKey, datetime]) -> None:
        """Set times of last use; ignore unknown keys and earlier times."""

    async def forget_unused(self, before: datetime, most: int, limit: int) -> int:
        """Delete realisations that were fetched and last used before a time; return how many.

        Uploaded ones stay.

        :param most: how many fetched ones may stay; the oldest of the others are deleted as well.
        :param limit: how many to delete, at most.
        """


class RealisationStore(Protocol):
    """A store with a copy of each uploaded realisation (text, D13), by `RealisationKey.digest`."""

    async def put(self, digest: str, text: bytes) -> None:
        """Write or replace a text: atomic, durable on return.

        Raises StorageFull if nothing may be written, Unavailable if it fails now.
        """

    async def get(self, digest: str) -> bytes | None:
        """Return the text; None: surely absent. Raises Unavailable if that is unknown."""

    async def delete(self, digest: str) -> bool:
        """Remove a text; False if it was absent. Raises Unavailable if that fails."""

    def walk(self) -> AsyncIterator[str]:
        """Yield every digest, in no order."""
