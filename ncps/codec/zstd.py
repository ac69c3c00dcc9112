"""Compression ``zstd``: read by the module of Python 3.14 or its backport, written by `zstandard`.

Frames may follow each other, and skippable frames may lie between them (RFC 8878, section 3). Only
the module for reading limits its output and detects a cut file (D18).
"""

from __future__ import annotations

import sys
from typing import Final

from ncps.codec.stream import Decoder, Decompressor, Encoder, StreamDecoder, StreamEncoder

if sys.version_info >= (3, 14):  # pragma: no cover - the interpreter decides
    from compression import zstd
else:  # pragma: no cover
    from backports import zstd

WINDOW_LOG: Final = 27
"""The largest window, 128 MiB, as in `zstd --long` and Nix; a decoder allocates it."""


def _begin() -> Decompressor:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG})


def decoder() -> Decoder:
    """Return a decoder of .zst files."""
    return StreamDecoder("zstd", _begin, zstd.ZstdError)


def encoder(level: int | None = None, *, threads: int = 0, is_long: bool = False) -> Encoder:
    """Return an encoder of .zst files; levels go from 1 to 22, and below 0 for speed.

    :param threads: number of threads that compress beside the caller's.
    :param is_long: whether to search for repetitions in the whole of the largest window.
    """
    import zstandard  # noqa: PLC0415 - a daemon only reads

    parameters = zstandard.ZstdCompressionParameters.from_level(
        3 if level is None else level,
        threads=threads,
        write_checksum=True,
        **({"enable_ldm": True, "window_log": WINDOW_LOG} if is_long else {}),
    )
    return StreamEncoder(zstandard.ZstdCompressor(compression_params=parameters).compressobj())
