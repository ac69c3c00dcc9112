"""Realisations: the index of those that are served, and the copies of those that were uploaded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Final, Protocol

from attrs import frozen

from ncps.nix.realisation import Realisation, RealisationKey

UPLOAD: Final = "upload"
"""Vouches for a realisation that no known key has signed: its sender had the right to upload."""


@frozen(kw_only=True)
class RealisationEntry:
    """A realisation as it is served, and where it came from.

    :param upstream: base URL of the upstream it came from, without credentials; empty if a client
        sent it.
    :param is_uploaded: whether a client sent it.
    :param verified_by: the public key that vouched for it (`name:base64`), or `UPLOAD`; empty if
        nothing did.
    :param signed_by: the public key of our signature in it; empty: it has none.
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
        """Its key."""
        return self.realisation.key


class Realisations(Protocol):
    """The index that requests use; each method is one transaction.

    Raises Unavailable if the database is away.
    """

    async def find(self, key: RealisationKey) -> RealisationEntry | None:
        """Return the realisation under a key, or None."""

    async def put(self, entry: RealisationEntry, before: RealisationEntry | None) -> bool:
        """Insert or replace; an upload survives a loss of power on return.

        The last use is kept. Raises StorageFull if nothing can be written.

        :param before: the value that was found under the key, or None; if there is another one now,
            nothing is written, and the result is False.
        """

    async def forget(self, key: RealisationKey) -> bool:
        """Delete the realisation under a key; False if there is none.

        It survives a loss of power on return.
        """

    async def uploaded(self) -> tuple[int, int]:
        """Return how many were uploaded, and how many characters they have; reads all rows."""

    async def touch(self, uses: Mapping[RealisationKey, datetime]) -> None:
        """Set times of last use; unknown keys are ignored; never backwards."""

    async def forget_unused(self, before: datetime, most: int, limit: int) -> int:
        """Delete those that were fetched and last used before a time, and the oldest over `most`.

        Uploaded ones stay. Returns how many were deleted.

        :param limit: how many to delete at most.
        """


class RealisationStore(Protocol):
    """Keeps a copy of each uploaded realisation (text, D13), by `RealisationKey.digest`."""

    async def put(self, digest: str, text: bytes) -> None:
        """Write or replace, atomic and durable on return.

        Raises StorageFull if nothing may be written, Unavailable if it fails now.
        """

    async def get(self, digest: str) -> bytes | None:
        """Return the text; None: surely absent. Raises Unavailable if it cannot tell."""

    async def delete(self, digest: str) -> bool:
        """Remove it; False if it was absent. Raises Unavailable if it cannot."""

    def walk(self) -> AsyncIterator[str]:
        """Every digest, in no order."""
