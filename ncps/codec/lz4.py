"""Compression ``lz4``: the frame format, frames end to end."""

from __future__ import annotations

import lz4.frame

from ncps.codec.stream import Data, Decoder, Decompressor, Encoder, StreamDecoder, StreamEncoder


class _Frame(Decompressor):
    """An adapter of the library's decompressor, whose `unused_data` is None instead of empty."""

    def __init__(self) -> None:
        self._lz4 = lz4.frame.LZ4FrameDecompressor()

    @property
    def eof(self) -> bool:
        return bool(self._lz4.eof)

    @property
    def needs_input(self) -> bool:
        return bool(self._lz4.needs_input)

    @property
    def unused_data(self) -> bytes:
        return self._lz4.unused_data or b""

    def decompress(self, data: Data, max_length: int) -> bytes:
        piece: bytes = self._lz4.decompress(data, max_length)
        return piece


class _Compressor:
    """An adapter of the library's compressor, whose `begin` returns the head of the frame."""

    def __init__(self, level: int) -> None:
        self._lz4 = lz4.frame.LZ4FrameCompressor(compression_level=level)
        self._head: bytes = self._lz4.begin()

    def compress(self, data: Data, /) -> bytes:
        piece: bytes = self._head + self._lz4.compress(data)
        self._head = b""
        return piece

    def flush(self) -> bytes:
        rest: bytes = self._head + self._lz4.flush()
        return rest


def decoder() -> Decoder:
    """Return a decoder of .lz4 files."""
    return StreamDecoder("lz4", _Frame, RuntimeError)


def encoder(level: int | None = None) -> Encoder:
    """Return an encoder of .lz4 files; levels go from 0 to 16."""
    return StreamEncoder(_Compressor(level or 0))
