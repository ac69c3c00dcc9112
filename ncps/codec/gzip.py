"""Compression ``gzip``: members end to end (RFC 1952, section 2.2), through zlib."""

from __future__ import annotations

import zlib
from typing import Final

from ncps.codec.stream import Data, Decoder, Decompressor, Encoder, StreamDecoder, StreamEncoder

_GZIP: Final = 16 + zlib.MAX_WBITS  # makes zlib read and write gzip's head and tail


class _Member(Decompressor):
    """An adapter of zlib's decompressor, which leaves unread input to its caller."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(_GZIP)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: Data, max_length: int) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail or data, max_length)


def decoder() -> Decoder:
    """Return a decoder of .gz files."""
    return StreamDecoder("gzip", _Member, zlib.error)


def encoder(level: int | None = None) -> Encoder:
    """Return an encoder of .gz files; levels go from 0 to 9."""
    return StreamEncoder(zlib.compressobj(-1 if level is None else level, wbits=_GZIP))
