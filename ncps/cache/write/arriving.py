"""An upload that arrives: a spool, its hash, and the inspection of the NAR inside.

chunks --> spool (hash, inspect) -----> Received --> published --> gone
             |                              |
             +-- wrong, too large, cut -----+--> gone, and nothing is left
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable
from typing import Final

from ncps.aio.admission import Admitted
from ncps.aio.spool import Abandoned, Spool
from ncps.aio.threads import Threads
from ncps.cache.write.inspection import Inside, UploadInspection
from ncps.codec.magic import compression_of
from ncps.errors import Corrupt, Malformed, StorageFull, TooLarge
from ncps.nix.hashes import Hash
from ncps.nix.nar import MAGIC
from ncps.nix.narcheck import FileDigest
from ncps.nix.narurl import COMPRESSIONS, NarKey
from ncps.ports import NarStore, Stat

MEMORY: Final = 16 * 1024 * 1024
"""Bytes of all uploads that may wait in memory to be written, about."""

LEAST: Final = 64 * 1024
MOST: Final = 4 * 1024 * 1024
"""The least and the greatest limit for the bytes of one upload that wait in memory."""

STEP: Final = 8 * 1024 * 1024
"""Bytes of the steps in which an upload of unknown length reserves room on the disk."""


async def peeked(chunks: AsyncIterable[bytes], size: int) -> tuple[bytes, AsyncIterator[bytes]]:
    """Return the first bytes of chunks, and all of them."""
    iterator = aiter(chunks)
    head = b""
    async for chunk in iterator:
        head += chunk
        if len(head) >= size:
            break

    async def whole() -> AsyncIterator[bytes]:
        if head:
            yield head
        async for chunk in iterator:
            yield chunk

    return head[:size], whole()


def compression_by(key: NarKey, head: bytes) -> str:
    """Return the compression of a file with this beginning.

    Raises Malformed if the name says another one. Nix gives files in gzip the names of files
    without a compression.
    """
    named, found = COMPRESSIONS[key.extension], compression_of(head)
    if named == "none" and not head.startswith(MAGIC):
        if found is None:
            raise Malformed("the upload is no NAR, and in no compression that ncps knows")
        return found
    if named not in {"none", "br"} and found != named:
        raise Malformed(f"the upload is not in {named}, as its name says")
    return named


class Received:
    """The bytes of one upload; the last coroutine that works with them closes it.

    :param announced: bytes that the client has announced; None if it has announced no length.
    :param piece: bytes that wait to be written, at most.
    :ivar is_taken: whether a job that outlives the request closes it.
    """

    def __init__(
        self,
        ticket: Admitted,
        inspection: UploadInspection,
        threads: Threads,
        *,
        announced: int | None,
        piece: int,
    ) -> None:
        self.is_taken = False
        self.inside: tuple[Hash, int] | None = None
        self.build_ids: list[str] = []
        self.sha256: Hash | None = None
        self._ticket = ticket
        self._inspection = inspection
        self._threads = threads
        self._announced = announced
        self._piece = piece
        self._spool: Spool | None = None
        self._looking: Inside | None = None

    @property
    def size(self) -> int:
        """Bytes that have arrived."""
        return 0 if self._spool is None else self._spool.length

    async def take(self, chunks: AsyncIterable[bytes], compression: str) -> None:
        """Receive all bytes.

        Raises Malformed if they are fewer than announced or no NAR, TooLarge if they are more than
        announced, StorageFull if the disk is full; and the errors of `chunks`.
        """
        size, file = self._announced, FileDigest()
        self._looking = self._inspection.begin(compression)
        digests = (file,) if self._looking is None else (file, self._looking)
        self._spool = self._ticket.spool(size, digests)
        await self._fill(self._spool, chunks)
        if size is not None and self._spool.length != size:
            raise Malformed(f"{self._spool.length} bytes came, {size} were announced")
        self.sha256 = file.finish()
        if self._looking is not None:
            try:
                self.inside = await self._threads.run(self._looking.finish, self.sha256)
                self.build_ids = self._looking.build_ids
            except Corrupt as error:
                raise Malformed(f"the upload is no NAR: {error}") from error

    async def _fill(self, spool: Spool, chunks: AsyncIterable[bytes]) -> None:
        size = self._announced
        self._refuse_full(spool)
        came = room = 0
        async for chunk in chunks:
            came += len(chunk)
            if size is not None and came > size:
                raise TooLarge(f"more than the {size} bytes came that were announced")
            if size is None and came > room:
                room = came + STEP
                self._take_room(room)
            await self._taken(spool, spool.write(chunk))
            await self._taken(spool, spool.flush(self._piece))
        await self._taken(spool, spool.flush())

    def _take_room(self, size: int) -> None:
        """Reserve room on the disk for this size. Raises StorageFull if there is not enough."""
        refusal = self._ticket.extend(size)
        if refusal:
            raise StorageFull(refusal)

    async def _taken(self, spool: Spool, step: Awaitable[None]) -> None:
        """Wait for a step of the spool."""
        try:
            await step
        except Abandoned as error:
            raise StorageFull(spool.keep_error or str(error)) from error
        except Corrupt as error:
            raise Malformed(f"the upload is no NAR: {error}") from error
        self._refuse_full(spool)

    @staticmethod
    def _refuse_full(spool: Spool) -> None:
        if not spool.is_kept:
            raise StorageFull(spool.keep_error)

    async def store(self, store: NarStore, key: NarKey) -> Stat:
        """Publish the file."""
        assert self._spool is not None
        assert self.sha256 is not None
        return await store.publish(key, self._spool.spooled(self.sha256))

    def close(self) -> None:
        """Free the spool, the inspection and the room on the disk; idempotent."""
        spool, self._spool = self._spool, None
        if spool is not None:
            spool.fail(Abandoned("the upload has ended"))
            spool.release()
        looking, self._looking = self._looking, None
        if looking is not None:
            self._inspection.end(looking)
        self._ticket.close()
