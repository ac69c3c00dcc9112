"""Seal: what the bytes of a file must turn out to be, and the digests that tell."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from attrs import frozen

from ncps.codec import is_supported
from ncps.codec.ratio import USUAL, Ratio, most
from ncps.errors import Corrupt, Malformed, NotFound
from ncps.nix.hashes import Hash
from ncps.nix.narcheck import NarDigest
from ncps.nix.narurl import NarKey
from ncps.ports import NarRecord
from ncps.spool import Digest

_CHEAP = frozenset({"zstd"})
"""Compressions undone while the bytes arrive, to check NarHash too; others are checked later."""


class Unverifiable(Corrupt):
    """There is nothing to tell right bytes from wrong ones by."""


@frozen(kw_only=True)
class Verdict:
    """Facts of a file that is what it should be.

    :param nar_verified: whether NarHash was found right, too.
    """

    size: int
    sha256: Hash
    nar_verified: bool


class _Sha256:
    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def feed(self, data: bytes) -> None:
        self._hash.update(data)

    def finish(self) -> Hash:
        return Hash.of_sha256(self._hash.digest())


def _named(key: NarKey) -> Hash:
    try:
        return key.as_hash()
    except Malformed as error:
        raise NotFound(f"{key.file_name} is named by no hash") from error


class Seal:
    """The judge of one spool.

    Where no narinfo is known, the file's name is taken for its hash. Where the narinfo names no
    FileHash, NarHash decides. NotFound: there can be no such file. Unverifiable: see there.

    :param expected: what the narinfo says; None if none is known.
    :param max_ratio: bytes of NAR for a byte of its file. A file that promises more is not looked
        into here, where every miss pays for it, unless it cannot be verified otherwise.
    :param reached: told of a file that goes beyond.
    """

    def __init__(
        self,
        key: NarKey,
        expected: NarRecord | None,
        *,
        max_ratio: int = USUAL,
        reached: Callable[[], object] = lambda: None,
    ) -> None:
        self.size = expected.file_size if expected is not None else None
        self._file_hash = expected.file_hash if expected is not None else _named(key)
        self._nar_hash = expected.nar_hash if expected is not None else None
        self._nar_size = expected.nar_size if expected is not None else None
        self._file = _Sha256()
        self._nar: NarDigest | None = None
        compression = expected.compression if expected is not None else ""
        is_wanted = compression in _CHEAP or self._file_hash is None
        if is_wanted and self._file_hash is not None and self._is_beyond(max_ratio):
            is_wanted = False
            reached()
        if self._nar_hash is not None and is_wanted and is_supported(compression):
            ratio = None if self.size is not None else Ratio(max_ratio, reached)
            self._nar = NarDigest(compression, max_size=self._nar_size, ratio=ratio)
        if self._file_hash is None and self._nar is None:
            raise Unverifiable(f"{key.file_name} has no FileHash, and {compression} is not read")

    def _is_beyond(self, max_ratio: int) -> bool:
        """Whether the file promises to become more than it is looked into for."""
        if self._nar_size is None or self.size is None:
            return False
        return self._nar_size > most(self.size, max_ratio)

    @property
    def digests(self) -> tuple[Digest, ...]:
        """What must see every byte, in order."""
        return (self._file,) if self._nar is None else (self._file, self._nar)

    def judge(self, size: int) -> Verdict:
        """Say what the bytes are; Corrupt if not what they should be. May take CPU time."""
        sha256 = self._file.finish()
        if self.size is not None and size != self.size:
            raise Corrupt(f"{size} bytes instead of FileSize {self.size}")
        if self._file_hash is not None and sha256 != self._file_hash:
            raise Corrupt(f"hash {sha256} instead of FileHash {self._file_hash}")
        nar_verified = sha256 == self._nar_hash
        if self._nar is not None:
            nar_hash, nar_size = self._nar.finish()
            if nar_hash != self._nar_hash:
                raise Corrupt(f"NAR hash {nar_hash} instead of NarHash {self._nar_hash}")
            if self._nar_size is not None and nar_size != self._nar_size:
                raise Corrupt(f"NAR of {nar_size} bytes instead of NarSize {self._nar_size}")
            nar_verified = True
        return Verdict(size=size, sha256=sha256, nar_verified=nar_verified)
