"""The verbs of uploads, and their answers: all that the web layer knows of them.

Errors say what the client can do: Malformed (the upload contradicts itself), Refused (the client
may not, or nothing vouches for the upload), Conflict (other bytes have this name), TooLarge,
StorageFull, and Unavailable or Busy (try again). After each of these errors no client sees a part
of the upload.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterable
from typing import Protocol

from ncps.auth.principal import Principal
from ncps.cache.answers import NarSource, NarStat, ServedNar, ServedNarInfo
from ncps.nix.narurl import NarKey


class UploadOutcome(enum.Enum):
    """The result of an upload; the value is a label of metrics."""

    STORED = "stored"  # it is new here
    KNOWN = "known"  # the same was here before
    MERGED = "merged"  # the narinfo was here; it has more signatures now


class Uploads(NarSource, Protocol):
    """Takes uploads, and answers clients that ask what they need not upload."""

    async def put_nar(
        self, key: NarKey, chunks: AsyncIterable[bytes], size: int | None
    ) -> UploadOutcome:
        """Store the file of a NAR; durable on return.

        Clients see it after a narinfo that names it was uploaded; without one it is removed after a
        while. Raises the errors of `chunks`, and those of this module.

        :param chunks: the file. It is read as fast as it can be stored, and not closed.
        :param size: its size in bytes, if the client has announced it.
        """

    async def put_narinfo(self, digest: str, text: bytes, principal: Principal) -> UploadOutcome:
        """Accept a narinfo whose NAR was uploaded before; durable on return.

        Raises the errors of this module.

        :param digest: the hash part of the store path in the URL.
        :param principal: the client; it needs the scope `WRITE` for the store path.
        """

    async def narinfo(self, digest: str) -> ServedNarInfo:
        """Return the narinfo of a path that is stored here; no upstream is asked.

        Raises NotFound if it is not here, Unavailable if that cannot be told.
        """

    async def key_of(self, digest: str, file_name: str) -> NarKey:
        """Raise NotFound: clients that upload know no old names."""

    async def nar(self, key: NarKey, *, is_part: bool = False) -> ServedNar:
        """Open a stored NAR; else as `narinfo`."""

    async def stat_nar(self, key: NarKey) -> NarStat:
        """Return the size of a stored NAR; else as `narinfo`."""
