"""Codecs: the compressions of NARs, by the names that narinfos give them.

    decoder("xz").feed(data) -> pieces ... .finish()
    encoder("zstd").feed(data) -> bytes ... .finish() -> bytes

Decoders are for data from untrusted sources: they limit memory and the size of each piece. Every
fault of the data raises Corrupt, also truncation and trailing bytes. ncps passes lzip and the rarer
compressions of Nix on without decoding; no well-kept library decodes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import Final, Protocol, cast

from ncps.codec.stream import Decoder, Encoder
from ncps.errors import Refused

__all__ = [
    "CODECS",
    "Codec",
    "Decoder",
    "Encoder",
    "decoder",
    "encoder",
    "import_all",
    "is_supported",
]


class Codec(Protocol):
    """The functions that each module of a compression offers."""

    @property
    def decoder(self) -> Callable[[], Decoder]:
        """Return a fresh decoder."""

    @property
    def encoder(self) -> Callable[[int | None], Encoder]:
        """Return a fresh encoder of this level; None: a medium one."""


CODECS: Final[Mapping[str, str]] = {
    "none": "ncps.codec.identity",
    "xz": "ncps.codec.xz",
    "zstd": "ncps.codec.zstd",
    "bzip2": "ncps.codec.bzip2",
    "br": "ncps.codec.br",
    "gzip": "ncps.codec.gzip",
    "lz4": "ncps.codec.lz4",
}
"""The modules of the supported compressions, by their names in narinfos.

Each is imported when it is first used, because it imports a library.
"""


def is_supported(compression: str) -> bool:
    """Return whether ncps can decompress NARs of this compression."""
    return compression in CODECS


def decoder(compression: str) -> Decoder:
    """Return a fresh decoder. Raises Refused if this compression is not supported."""
    return _codec(compression).decoder()


def encoder(compression: str, level: int | None = None) -> Encoder:
    """Return a fresh encoder. Raises Refused if this compression is not supported.

    :param level: in the compression's own scale; None: a medium one.
    """
    return _codec(compression).encoder(level)


def import_all() -> None:
    """Import the modules of all compressions, so that no NAR waits for an import."""
    for compression in CODECS:
        _codec(compression)


@cache
def _codec(compression: str) -> Codec:
    module = CODECS.get(compression)
    if module is None:
        raise Refused(f"compression {compression[:32]!r} is not supported")
    return cast("Codec", import_module(module))
