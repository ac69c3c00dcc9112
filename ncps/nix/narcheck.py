"""The hash, size and listing of a NAR, computed from the bytes of its file as they arrive."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from math import inf
from typing import Final

from attrs import frozen

from ncps import codec
from ncps.codec.ratio import Ratio
from ncps.codec.stream import TooDear
from ncps.errors import Corrupt
from ncps.nix.hashes import Hash
from ncps.nix.nar import Listing, NarParser

HASH_RATE: Final = 1e9
"""Bytes of a file that are hashed in a second, about."""

RATES: Final = {"none": 1e9, "zstd": 4e8, "lz4": 4e8, "gzip": 1.5e8, "br": 1.5e8, "xz": 5e7}
"""Bytes of a NAR that are unpacked and hashed in a second, about, by its compression."""

SLOWEST: Final = 2e7
"""The rate for other compressions."""


class FileDigest:
    """The hash of a file as it is.

    :param size: bytes of the file, if known.
    :param follow: called with each piece of the file.
    :ivar cost_s: estimated seconds for the whole file; infinite if its size is unknown.
    """

    def __init__(
        self, size: int | None = None, follow: Callable[[bytes], object] | None = None
    ) -> None:
        self._hash = hashlib.sha256()
        self._follow = follow
        self.cost_s = inf if size is None else size / HASH_RATE

    def feed(self, data: bytes) -> None:
        """Hash the next bytes."""
        self._hash.update(data)
        if self._follow is not None:
            self._follow(data)

    def finish(self) -> Hash:
        """Return the hash."""
        return Hash.of_sha256(self._hash.digest())


class NarDigest:
    """The hash of the NAR inside a file that is fed in pieces.

    64 KiB of xz take about 1 ms, those of zstd a tenth of that: large files belong into a thread.

    :param compression: as in the narinfo; raises Refused if ncps cannot decompress it.
    :param max_size: bytes of the NAR, at most; `feed` raises Corrupt beyond, so a decompression
        bomb costs no more than the NAR that was promised. None: no limit.
    :param ratio: limits the size of the NAR if the size of the file is unknown.
    :ivar cost_s: estimated seconds for a NAR of `max_size`; infinite without it.
    :param listing: whether to parse the NAR as well, which also proves that it is one.
    :param follow: called with each piece of the NAR; may raise Corrupt.
    """

    def __init__(
        self,
        compression: str,
        *,
        max_size: int | None = None,
        ratio: Ratio | None = None,
        listing: bool = False,
        follow: Callable[[bytes], object] | None = None,
    ) -> None:
        self._decoder = codec.decoder(compression)
        rate = RATES.get(compression, SLOWEST)
        self.cost_s = inf if max_size is None else max_size / rate
        self._hash = hashlib.sha256()
        self._is_too_dear = False
        self._size = 0
        self._max_size = max_size
        self._ratio = ratio
        self._parser = NarParser() if listing else None
        self._follow = follow
        self._listing: Listing | None = None

    @property
    def listing(self) -> Listing | None:
        """The listing of the NAR, if requested; None before `finish` has returned."""
        return self._listing

    def feed(self, data: bytes | memoryview) -> None:
        """Read the next bytes of the file; they are not kept. Raises Corrupt if they are wrong."""
        if self._is_too_dear:
            return
        try:
            self._feed(data)
        except TooDear:
            self._is_too_dear = True

    def _feed(self, data: bytes | memoryview) -> None:
        if self._ratio is not None:
            self._ratio.took(len(data))
        for piece in self._decoder.feed(data):
            self._size += len(piece)
            if self._ratio is not None:
                self._ratio.gave(len(piece))
            if self._max_size is not None and self._size > self._max_size:
                raise Corrupt(f"the NAR is longer than {self._max_size} bytes")
            self._hash.update(piece)
            if self._parser is not None:
                self._parser.feed(piece)
            if self._follow is not None:
                self._follow(piece)

    def finish(self) -> tuple[Hash, int]:
        """Return NarHash and NarSize of the bytes so far.

        Raises Corrupt if the file is truncated, TooDear if to decompress it takes too much memory.
        More bytes may follow after this call, unless a listing was requested.
        """
        if self._is_too_dear:
            raise TooDear("decompressing the NAR takes too much memory")
        self._decoder.finish()
        if self._parser is not None:
            self._listing = self._parser.finish()
        return Hash.of_sha256(self._hash.digest()), self._size


@frozen(kw_only=True)
class Examined:
    """The facts of a NAR."""

    nar_hash: Hash
    nar_size: int
    listing: Listing


def examine(
    chunks: Iterable[bytes | memoryview], compression: str, *, max_size: int | None = None
) -> Examined:
    """Check a whole NAR file in one call; arguments and errors are those of `NarDigest`."""
    digest = NarDigest(compression, max_size=max_size, listing=True)
    for chunk in chunks:
        digest.feed(chunk)
    nar_hash, nar_size = digest.finish()
    assert digest.listing is not None
    return Examined(nar_hash=nar_hash, nar_size=nar_size, listing=digest.listing)
