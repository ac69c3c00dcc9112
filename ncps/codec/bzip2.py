"""Compression ``bzip2``."""

from __future__ import annotations

import bz2

from ncps.codec.stream import Decoder, Encoder, StreamDecoder, StreamEncoder


def decoder() -> Decoder:
    """Return a decoder of .bz2 files."""
    return StreamDecoder("bzip2", bz2.BZ2Decompressor, OSError)


def encoder(level: int | None = None) -> Encoder:
    """Return an encoder of .bz2 files; levels go from 1 to 9."""
    return StreamEncoder(bz2.BZ2Compressor(9 if level is None else level))
