"""Codecs: the compressions of NARs, by the names that narinfos give them.

    decoder("xz").feed(data) -> pieces ... .finish()
    encoder("zstd").feed(data) -> bytes ... .finish() -> bytes

Decoders are for data from strangers: memory and the size of each piece are bounded, and every
fault of the data raises `Corrupt`, also truncation and trailing bytes. lzip and the rarer
compressions of Nix are passed on unread; no library of repute decodes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from ncps.codec import br, bzip2, gzip, identity, lz4, xz, zstd
from ncps.codec.stream import Decoder, Encoder
from ncps.errors import Refused

__all__ = ["CODECS", "Codec", "Decoder", "Encoder", "decoder", "encoder", "is_supported"]


class Codec(Protocol):
    """The functions that each module of a compression offers."""

    @property
    def decoder(self) -> Callable[[], Decoder]:
        """Return a fresh decoder."""

    @property
    def encoder(self) -> Callable[[int | None], Encoder]:
        """Return a fresh encoder of the level given, or of a middling one."""


CODECS: Mapping[str, Codec] = {
    "none": identity,
    "xz": xz,
    "zstd": zstd,
    "bzip2": bzip2,
    "br": br,
    "gzip": gzip,
    "lz4": lz4,
}
"""The compressions that can be read and written, by their names in narinfos."""


def is_supported(compression: str) -> bool:
    """Whether NARs of this compression can be looked into."""
    return compression in CODECS


def decoder(compression: str) -> Decoder:
    """Return a fresh decoder. Raises Refused if this compression cannot be looked into."""
    return _codec(compression).decoder()


def encoder(compression: str, level: int | None = None) -> Encoder:
    """Return a fresh encoder. Raises Refused if this compression cannot be written.

    :param level: in the compression's own scale; None: a middling one.
    """
    return _codec(compression).encoder(level)


def _codec(compression: str) -> Codec:
    try:
        return CODECS[compression]
    except KeyError:
        raise Refused(f"compression {compression[:32]!r} is not supported") from None
