"""The contract of transcoders."""

from __future__ import annotations

from collections.abc import AsyncIterator

from ncps.codec import zstd
from ncps.errors import Corrupt, Unavailable
from ncps.nix.hashes import sha256_of
from ncps.ports import Body, Order, Segment, Transcoder
from tests.contract.running import Contract
from tests.fakes.samples import Sample, compressed, packed


class Pieces:
    """A body of a few chunks, and perhaps an error after them."""

    def __init__(self, *chunks: bytes, error: Exception | None = None) -> None:
        self.chunks = chunks
        self.error = error
        self.is_closed = False

    @property
    def size(self) -> int | None:
        return sum(map(len, self.chunks))

    def segment(self) -> Segment | None:
        return None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            yield chunk
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self.is_closed = True


class TranscoderContract(Contract):
    transcoder: Transcoder

    def leftovers(self) -> list[str]:
        """Return the names of unfinished files."""
        raise NotImplementedError

    def sample(self) -> Sample:
        return packed("twin", b"some contents " * 50_000, "xz")

    def order(self, sample: Sample, compression: str = "xz", level: int = 3) -> Order:
        return Order(compression=compression, nar_size=len(sample.nar), level=level)

    def body(self, data: bytes) -> Body:
        return Pieces(*(data[start : start + 1000] for start in range(0, len(data), 1000)))

    async def test_xz_becomes_zstd(self) -> None:
        """The file contains the same NAR, and the facts about both files are right."""
        sample = self.sample()
        made = await self.transcoder.transcode(self.body(sample.file), self.order(sample))
        try:
            written = made.file.path.read_bytes()
        finally:
            made.file.discard()
            made.file.close()
        decoder = zstd.decoder()
        self.assertEqual(b"".join(decoder.feed(written)), sample.nar)
        decoder.finish()
        self.assertEqual((made.nar_hash, made.nar_size), (sha256_of(sample.nar), len(sample.nar)))
        self.assertEqual((made.file_hash, made.file_size), (sha256_of(written), len(written)))
        self.assertGreater(made.cpu_s, 0.0)

    async def test_same_bytes_again(self) -> None:
        """The same NAR, level and threads make the same file, from any compression."""
        sample = self.sample()
        hashes = set()
        for compression, data in (("xz", sample.file), ("none", sample.nar)):
            order = self.order(sample, compression)
            made = await self.transcoder.transcode(self.body(data), order)
            made.file.discard()
            made.file.close()
            hashes.add(made.file_hash)
        self.assertEqual(len(hashes), 1)

    async def test_damage_is_corrupt(self) -> None:
        """A source that is cut, too long, or not in xz raises Corrupt, and leaves no file."""
        sample = self.sample()
        for data in (sample.file[:-20], compressed(sample.nar + b"more", "xz"), b"no xz"):
            order = self.order(sample)
            await self.assert_raises(Corrupt, self.transcoder.transcode(self.body(data), order))
        self.assertEqual(self.leftovers(), [])

    async def test_error_of_the_source(self) -> None:
        """Errors of the source propagate, and no file is left."""
        sample = self.sample()
        broken = Pieces(sample.file[:3000], error=Unavailable("the disk is away"))
        error = await self.assert_raises(
            Unavailable, self.transcoder.transcode(broken, self.order(sample))
        )
        self.assertEqual(str(error), "the disk is away")
        self.assertEqual(self.leftovers(), [])
