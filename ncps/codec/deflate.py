"""Content-Encoding ``deflate``: zlib's format (RFC 1950), or the data inside it (RFC 1951).

Servers send either, so the first two bytes decide. No NAR has this compression.
"""

from __future__ import annotations

import zlib

from ncps.codec.stream import Data, Decoder, Decompressor, StreamDecoder

_HEAD = 2


class _Stream(Decompressor):
    def __init__(self) -> None:
        self._head = b""
        self._zlib: zlib._Decompress | None = None

    @property
    def eof(self) -> bool:
        return self._zlib is not None and self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return self._zlib is None or not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return b"" if self._zlib is None else self._zlib.unused_data

    def decompress(self, data: Data, max_length: int) -> bytes:
        if self._zlib is None:
            self._head += data
            if len(self._head) < _HEAD:
                return b""
            data = self._head
            self._zlib = zlib.decompressobj(_window(data))
        return self._zlib.decompress(self._zlib.unconsumed_tail or data, max_length)


def _window(head: bytes) -> int:
    """Return zlib's window bits for data that begin with these bytes."""
    is_zlib = head[0] & 0x0F == 8 and int.from_bytes(head[:2], "big") % 31 == 0
    return zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS


def decoder() -> Decoder:
    """Return a decoder of one stream."""
    return StreamDecoder("deflate", _Stream, zlib.error, may_repeat=False)
