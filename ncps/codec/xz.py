"""Compression ``xz``, and the older .lzma container, through liblzma.

In this format streams may follow each other, with zero bytes in multiples of four after each
(The .xz File Format 1.2.1, section 2.2).
"""

from __future__ import annotations

import lzma
from typing import Final

from ncps.codec.stream import Decoder, Decompressor, Encoder, StreamDecoder, StreamEncoder

MEMORY_LIMIT: Final = 256 * 1024 * 1024
"""Bytes of memory that liblzma may use for a stream; `xz -9` needs 65 MiB."""


def _begin() -> Decompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_AUTO, memlimit=MEMORY_LIMIT)


def decoder() -> Decoder:
    """Return a decoder of .xz and .lzma files."""
    return StreamDecoder("xz", _begin, lzma.LZMAError, padding=4)


def encoder(level: int | None = None) -> Encoder:
    """Return an encoder of .xz files; levels go from 0 to 9."""
    return StreamEncoder(lzma.LZMACompressor(preset=level))
