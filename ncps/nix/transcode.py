"""Transcoding: makes a file in zstd from another file of a NAR, piece by piece, and proves it.

For the proof another library than the one that wrote the file reads it again (D18).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import IO, Final

from attrs import frozen

from ncps.codec.stream import Encoder
from ncps.errors import Corrupt
from ncps.nix.hashes import Hash
from ncps.nix.narcheck import FileDigest, NarDigest

PIECE: Final = 128 * 1024
"""Bytes of one read."""


@frozen(kw_only=True)
class Transcript:
    """The facts of a file that was read."""

    file_hash: Hash
    file_size: int
    nar_hash: Hash
    nar_size: int


def pieces_of(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the bytes of a file to its end."""
    while piece := file.read(PIECE):
        yield piece


def transcode(
    source: Iterable[bytes],
    compression: str,
    encoder: Encoder,
    write: Callable[[bytes], object],
    *,
    max_size: int | None = None,
    listing: bool = False,
) -> Transcript:
    """Read the file of a NAR, and write the NAR in another compression.

    Raises Corrupt if the file is damaged, TooDear if to read it takes too much memory.

    :param max_size: see `NarDigest`.
    :param listing: see `NarDigest`.
    """
    digest, size = FileDigest(), 0
    nar = NarDigest(
        compression,
        max_size=max_size,
        listing=listing,
        follow=lambda data: write(encoder.feed(data)),
    )
    for piece in source:
        size += len(piece)
        digest.feed(piece)
        nar.feed(piece)
    nar_hash, nar_size = nar.finish()
    write(encoder.finish())
    return Transcript(
        file_hash=digest.finish(), file_size=size, nar_hash=nar_hash, nar_size=nar_size
    )


def prove(written: Iterable[bytes], nar_hash: Hash) -> tuple[Hash, int]:
    """Read a file in zstd; return its hash and size. Raises Corrupt unless it holds this NAR."""
    digest, nar, size = FileDigest(), NarDigest("zstd"), 0
    for piece in written:
        size += len(piece)
        digest.feed(piece)
        nar.feed(piece)
    if nar.finish()[0] != nar_hash:
        raise Corrupt("the new file does not contain the NAR that was written into it")
    return digest.finish(), size
