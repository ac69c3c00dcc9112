"""Compression ``zstd``: read by the module of Python 3.14 or its backport, written by `zstandard`.

Frames may follow each other, and skippable frames may lie between them (RFC 8878, section 3). Only
the module for reading limits its output and detects a cut file (D18).
"""

from __future__ import annotations

import sys
from typing import Any, Final

from ncps.codec.stream import Decoder, Decompressor, Encoder, StreamDecoder, StreamEncoder

if sys.version_info >= (3, 14):  # pragma: no cover - the interpreter decides
    from compression import zstd
else:  # pragma: no cover
    from backports import zstd

WINDOW_LOG: Final = 27
"""The largest window, 128 MiB, as in `zstd --long` and Nix; a decoder allocates it."""

SHARED_WINDOW_LOG: Final = 24
"""A window of 16 MiB, twice that of `xz -6`: a client that unpacks many NARs at the same time needs
one for each. Text becomes an eighth smaller than with the 4 MiB that are the default of level 9."""
_LEAST_WINDOW_LOG: Final = 17
_JOB: Final = 1 << SHARED_WINDOW_LOG
"""Bytes that one thread compresses at a time. For this window libzstd would choose 64 MiB, and need
320 MiB of memory with one thread instead of 100; the file would not become smaller."""
_OVERLAP_LOG: Final = 8
"""How much of the window before its own bytes each job can refer to: one half."""


def _begin() -> Decompressor:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG})


def decoder() -> Decoder:
    """Return a decoder of .zst files."""
    return StreamDecoder("zstd", _begin, zstd.ZstdError)


def _window(size: int, *, is_long: bool) -> dict[str, Any]:
    """Return the parameters of the window; none of them if the level decides."""
    if is_long:
        return {"enable_ldm": True, "window_log": WINDOW_LOG}
    if not size:
        return {}
    window_log = min(SHARED_WINDOW_LOG, max(_LEAST_WINDOW_LOG, (size - 1).bit_length()))
    return {"window_log": window_log, "job_size": _JOB, "overlap_log": _OVERLAP_LOG}


def encoder(
    level: int | None = None, *, threads: int = 0, is_long: bool = False, size: int = 0
) -> Encoder:
    """Return an encoder of .zst files; levels go from 1 to 22, and below 0 for speed.

    :param threads: number of threads that compress beside the caller's.
    :param is_long: whether to search for repetitions in the whole of the largest window.
    :param size: number of bytes that will be encoded; then the window is about as large, but not
        larger than `SHARED_WINDOW_LOG` allows. 0: unknown; then the level decides.
    """
    import zstandard  # noqa: PLC0415 - a daemon only reads

    parameters = zstandard.ZstdCompressionParameters.from_level(
        3 if level is None else level,
        threads=threads,
        write_checksum=True,
        **_window(size, is_long=is_long),
    )
    return StreamEncoder(zstandard.ZstdCompressor(compression_params=parameters).compressobj())
