"""The first bytes of compressed files, which show their compression."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_HEADS: Final[Mapping[bytes, str]] = {
    b"\xfd7zXZ\0": "xz",
    b"\x5d\0\0": "xz",  # the older .lzma
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x1f\x8b": "gzip",
    b"\x04\x22\x4d\x18": "lz4",
    **{bytes((first, 0x2A, 0x4D, 0x18)): "zstd" for first in range(0x50, 0x60)},  # skippable frames
}
LONGEST: Final = max(map(len, _HEADS))


def compression_of(head: bytes) -> str | None:
    """Return the compression of a file that begins with these bytes; None if unknown (Brotli)."""
    for known, compression in _HEADS.items():
        if head.startswith(known):
            return compression
    return None
