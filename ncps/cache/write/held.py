"""A small upload, which stays in memory until it is stored.

It needs no spool. A thread hashes and inspects it, unless it is tiny. Another thread stores it
together with other small files that wait at the same time.
"""

from __future__ import annotations

from collections.abc import AsyncIterable
from contextlib import suppress
from functools import partial
from typing import Final

from ncps.aio.admission import Admitted
from ncps.cache.write.inspection import UploadInspection
from ncps.errors import Busy, Corrupt, Malformed, TooLarge
from ncps.nix.hashes import Hash, sha256_of
from ncps.nix.narurl import NarKey
from ncps.ports import SMALL, NarStore, Stat

MEMORY: Final = 32 * 1024 * 1024
"""Bytes of all uploads in memory, at most; further uploads go into spools."""

TINY: Final = 8 * 1024
TINY_NAR: Final = 64 * 1024
"""Bytes of a file, and of the NAR inside, that the reactor's thread inspects, at most: the wait for
another thread would take longer."""


class Memory:
    """The memory that small uploads share."""

    def __init__(self) -> None:
        self._taken = 0

    def take(self, size: int | None) -> bool:
        """Reserve memory for an upload; return False if it is not small, or no memory is left."""
        if size is None or size > SMALL or self._taken + size > MEMORY:
            return False
        self._taken += size
        return True

    def give_back(self, size: int) -> None:
        """Free the memory of an upload; once for each `take` that returned True."""
        self._taken -= size


class Held:
    """An upload in memory, with the methods of `arriving.Received`.

    :param memory: from which its size was taken.
    :param ticket: its room on the disk.
    :ivar is_taken: whether a job that outlives the request closes it.
    """

    def __init__(
        self,
        size: int,
        memory: Memory,
        ticket: Admitted,
        inspection: UploadInspection,
    ) -> None:
        self.is_taken = False
        self.inside: tuple[Hash, int] | None = None
        self.build_ids: list[str] = []
        self.sha256: Hash | None = None
        self.size = size
        self._data = b""
        self._memory: Memory | None = memory
        self._ticket = ticket
        self._inspection = inspection

    async def take(self, chunks: AsyncIterable[bytes], compression: str) -> None:
        """Receive all bytes.

        Raises Malformed if they are fewer than announced or no NAR, TooLarge if they are more than
        announced, and the errors of `chunks`.
        """
        came, pieces = 0, []
        async for chunk in chunks:
            came += len(chunk)
            if came > self.size:
                raise TooLarge(f"more than the {self.size} bytes came that were announced")
            pieces.append(chunk)
        if came != self.size:
            raise Malformed(f"{came} bytes came, {self.size} were announced")
        self._data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self.sha256, self.inside = await self._look(compression)

    async def _look(self, compression: str) -> tuple[Hash, tuple[Hash, int] | None]:
        if len(self._data) <= TINY:
            with suppress(Malformed):  # it may be no NAR, or a long one: a thread finds out
                return self._look_blocking(compression, TINY_NAR)
        try:
            return await self._inspection.apart(partial(self._look_blocking, compression, None))
        except Busy:  # it is inspected after it is stored
            return sha256_of(self._data), None

    def _look_blocking(
        self, compression: str, most: int | None
    ) -> tuple[Hash, tuple[Hash, int] | None]:
        """Return the hash of the file, and hash and size of the NAR; None if that comes later.

        Raises Malformed if there is no NAR inside, or one of more than `most` bytes.
        """
        file_hash = sha256_of(self._data)
        inside = self._inspection.inside(compression, most)
        if inside is None:
            return file_hash, None
        try:
            inside.feed(self._data)
            found = inside.finish(file_hash)
            self.build_ids = inside.build_ids
            return file_hash, found
        except Corrupt as error:
            raise Malformed(f"the upload is no NAR: {error}") from error

    async def store(self, store: NarStore, key: NarKey) -> Stat:
        """Store the bytes."""
        assert self.sha256 is not None
        return await store.put_small(key, self._data, self.sha256)

    def close(self) -> None:
        """Free the bytes and the room on the disk; idempotent."""
        self._data = b""
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.give_back(self.size)
        self._ticket.close()
