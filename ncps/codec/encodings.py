"""Encodings of bodies from clients: the values of Content-Encoding, and their decoding."""

from __future__ import annotations

from typing import Final

from ncps.codec import decoder
from ncps.errors import Corrupt, Malformed, TooLarge, UnknownEncoding

_COMPRESSIONS: Final = {
    "": "",
    "br": "br",
    "bzip2": "bzip2",
    "gzip": "gzip",
    "identity": "",
    "lz4": "lz4",
    "none": "",  # not in HTTP; Nix 2.34 sends it for narinfo-compression=none
    "x-gzip": "gzip",
    "xz": "xz",
    "zstd": "zstd",
}
"""Compressions by Content-Encoding. Nix sends the names of its compressions there."""

KNOWN: Final = "br, bzip2, gzip, lz4, xz, zstd"


def compression_in(encoding: str) -> str:
    """Return the compression of a Content-Encoding; empty for none.

    Raises UnknownEncoding if ncps cannot decode it.
    """
    found = _COMPRESSIONS.get(encoding.strip().lower())
    if found is None:
        raise UnknownEncoding(f"Content-Encoding {encoding[:40]!r} is not known here; use {KNOWN}")
    return found


def decoded(data: bytes, encoding: str, most: int) -> bytes:
    """Decode a Content-Encoding. May take CPU time.

    Raises UnknownEncoding if it is not supported, Malformed if the data do not have it, TooLarge if
    they become more than `most` bytes.
    """
    compression = compression_in(encoding)
    if not compression:
        return data
    codec = decoder(compression)
    pieces, size = [], 0
    try:
        for piece in codec.feed(data):
            size += len(piece)
            if size > most:
                raise TooLarge(f"the body becomes more than {most} bytes")
            pieces.append(piece)
        codec.finish()
    except Corrupt as error:
        raise Malformed(f"the body is not in {compression}: {error}") from error
    return b"".join(pieces)
