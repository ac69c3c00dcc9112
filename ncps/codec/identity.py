"""Compression ``none``: what goes in comes out."""

from __future__ import annotations

from collections.abc import Iterator

from ncps.codec.stream import PIECE, Data, Decoder, Encoder


class Identity(Decoder):
    """A decoder that returns its data in bounded pieces; the file may end anywhere."""

    def feed(self, data: Data) -> Iterator[bytes]:
        if isinstance(data, bytes) and len(data) <= PIECE:
            if data:
                yield data
            return
        view = memoryview(data)
        for start in range(0, len(view), PIECE):
            yield bytes(view[start : start + PIECE])

    def finish(self) -> None:
        return


class IdentityEncoder(Encoder):
    """An encoder that returns its data."""

    def feed(self, data: Data) -> bytes:
        return bytes(data)

    def finish(self) -> bytes:
        return b""


def decoder() -> Decoder:
    """Return a decoder that only cuts data into pieces."""
    return Identity()


def encoder(level: int | None = None) -> Encoder:
    """Return an encoder that returns its data; `level` is ignored."""
    return IdentityEncoder()
