"""Compression ``br``: Brotli (RFC 7932), one stream to a file."""

from __future__ import annotations

from typing import Final

import brotli

from ncps.codec.stream import Data, Decoder, Decompressor, Encoder, StreamDecoder, StreamEncoder

_QUALITY: Final = 5  # the library's default, 11, is for files that are read a million times


class _Stream(Decompressor):
    """An adapter of Brotli's decompressor to the interface of the standard library."""

    unused_data = b""  # bytes after the end make `process` fail

    def __init__(self) -> None:
        self._brotli = brotli.Decompressor()

    @property
    def eof(self) -> bool:
        return bool(self._brotli.is_finished())

    @property
    def needs_input(self) -> bool:
        return bool(self._brotli.can_accept_more_data())

    def decompress(self, data: Data, max_length: int) -> bytes:
        piece: bytes = self._brotli.process(data, output_buffer_limit=max_length)
        return piece


class _Compressor:
    """An adapter of Brotli's compressor to the interface of the standard library."""

    def __init__(self, quality: int) -> None:
        self._brotli = brotli.Compressor(quality=quality)

    def compress(self, data: Data, /) -> bytes:
        piece: bytes = self._brotli.process(data)
        return piece

    def flush(self) -> bytes:
        rest: bytes = self._brotli.finish()
        return rest


def decoder() -> Decoder:
    """Return a decoder of .br files."""
    return StreamDecoder("br", _Stream, brotli.error, may_repeat=False)


def encoder(level: int | None = None) -> Encoder:
    """Return an encoder of .br files; levels (Brotli: quality) go from 0 to 11."""
    return StreamEncoder(_Compressor(_QUALITY if level is None else level))
