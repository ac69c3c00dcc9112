"""Judge: what the bytes of a file must turn out to be, and the digests that tell.

FileHash and FileSize of a narinfo are not signed, NarHash is. So the NAR inside has the last word,
and is read while the bytes arrive. Where it is right, so is the file, though its narinfo says
something else of it; where it is another one, a right FileHash does not help. A file under a
conventional name must have the hash that the name says besides, whatever is inside.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from attrs import frozen

from ncps.aio.spool import Digest, Spool
from ncps.codec import is_supported
from ncps.codec.ratio import USUAL, Ratio, most
from ncps.codec.stream import TooDear
from ncps.errors import Corrupt, Malformed, NotFound
from ncps.nix.hashes import Hash
from ncps.nix.narcheck import NarDigest
from ncps.nix.narurl import NarKey, is_opaque
from ncps.ports import NarRecord

_CHEAP = frozenset({"zstd"})
"""Compressions that are undone in a tenth of the time of others."""


MAX_SIZE: Final = 64 * 1024**3
"""Bytes of a file of which nothing is known but its name, at most."""

SLACK: Final = 1024 * 1024
"""Bytes that a file may have beyond twice its NAR: no compression makes it that much longer."""


class Unverifiable(Corrupt):
    """There is nothing to tell right bytes from wrong ones by."""


class Doubtful(Corrupt):
    """The file is not what its narinfo says of it; whether the NAR is has not been seen."""


class WrongBytes(Corrupt):
    """What lies in the spool is not, or not the beginning of, what was asked for."""


class WrongNar(Corrupt):
    """The file is the one that its narinfo names, and another NAR is inside.

    :ivar file_hash: of the file.
    """

    def __init__(self, message: str, file_hash: Hash) -> None:
        super().__init__(message)
        self.file_hash = file_hash


class Disputed(Corrupt):
    """A file has another size than its narinfo says: one of the two is wrong."""


@frozen(kw_only=True)
class Verdict:
    """Facts of a file that is what it should be.

    :param nar_verified: whether NarHash was found right, too.
    :param complaint: what the narinfo said of the file that is not true; empty: nothing.
    """

    size: int
    sha256: Hash
    nar_verified: bool
    complaint: str = ""


@frozen
class Arrived:
    """The whole file, verified. The caller publishes it and then releases the spool."""

    spool: Spool
    verdict: Verdict


class Sha256:
    """A Digest that hashes a file."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._hash.update(data)

    def finish(self) -> Hash:
        """Return the hash."""
        return Hash.of_sha256(self._hash.digest())


def _named(key: NarKey) -> Hash:
    try:
        return key.as_hash()
    except Malformed as error:
        raise NotFound(f"{key.file_name} is named by no hash") from error


def _belongs_to(key: NarKey, nar: NarRecord | None) -> bool:
    """Whether no other NAR than this one can have the name."""
    return (
        nar is not None
        and nar.nar_hash is not None
        and is_opaque(key, nar.compression, nar.nar_hash)
    )


class Judge:
    """The judge of one spool.

    Where no narinfo is known, or it is of a file with a conventional name, the name is the hash.
    Where the narinfo names no FileHash, NarHash decides. NotFound: there can be no such file.
    Unverifiable: see there.

    :param expected: what the narinfo says; None if none is known.
    :param max_ratio: bytes of NAR for a byte of its file. A file that promises more is not looked
        into here, where every miss pays for it, unless it cannot be verified otherwise.
    :param reached: told of a file that goes beyond.
    :param is_eager: whether NarHash is checked also where that is dear.
    :param is_thorough: whether NarHash is to be checked, too, whatever that costs.
    """

    def __init__(
        self,
        key: NarKey,
        expected: NarRecord | None,
        *,
        max_ratio: int = USUAL,
        reached: Callable[[], object] = lambda: None,
        is_eager: bool = True,
        is_thorough: bool = False,
    ) -> None:
        self.size = expected.file_size if expected is not None else None
        self._nar_hash = expected.nar_hash if expected is not None else None
        self._is_named = not _belongs_to(key, expected)
        known = expected.file_hash if expected is not None else None
        self._file_hash = _named(key) if self._is_named else known
        self._nar_size = expected.nar_size if expected is not None else None
        self._file = Sha256()
        self._sha256: Hash | None = None
        self._nar: NarDigest | None = None
        self._compression = expected.compression if expected is not None else ""
        self._max_ratio = max_ratio
        self._reached = reached
        is_wanted = is_thorough or self._file_hash is None
        if not is_wanted and (is_eager or self._compression in _CHEAP):
            is_wanted = not self._is_beyond(max_ratio)
            if not is_wanted:
                reached()
        is_plain = self._compression == "none" and self._file_hash == self._nar_hash
        if is_wanted and self._is_legible and not is_plain:
            ratio = None if self.size is not None else Ratio(max_ratio, reached)
            self._nar = self._new_digest(ratio)
        if self._file_hash is None and self._nar is None:
            raise Unverifiable(
                f"{key.file_name} has no FileHash, and {self._compression} is not read"
            )

    @property
    def can_overrule(self) -> bool:
        """Whether the NAR inside can decide over FileHash and FileSize."""
        return self._file_hash is not None and not self._is_named and self._is_legible

    @property
    def _is_legible(self) -> bool:
        return self._nar_hash is not None and is_supported(self._compression)

    def _new_digest(self, ratio: Ratio | None) -> NarDigest:
        return NarDigest(self._compression, max_size=self._nar_size, ratio=ratio)

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
        """Say what the bytes are; Corrupt if not what they should be. May take CPU time.

        Doubtful: only `inspector` can tell.
        """
        self._sha256 = self._sha256 or self._file.finish()
        complaint = self._complaint(size, self._sha256)
        if self._nar is not None:
            return self._inspected(self._nar, size, complaint)
        if complaint:
            raise Doubtful(complaint) if self.can_overrule else Corrupt(complaint)
        is_plain = self._sha256 == self._nar_hash
        return Verdict(size=size, sha256=self._sha256, nar_verified=is_plain)

    def confirms(self, size: int) -> bool:
        """Whether the bytes so far are the whole file, as far as they can tell; more may follow."""
        try:
            self.judge(size)
        except Corrupt:
            self._sha256 = None
            return False
        return True

    @property
    def most(self) -> int:
        """Bytes that the file may have, where nothing tells its size."""
        if self._nar_size is None:
            return MAX_SIZE
        return self._nar_size if self._compression == "none" else 2 * self._nar_size + SLACK

    def _complaint(self, size: int, sha256: Hash) -> str:
        if self.size is not None and size != self.size:
            return f"{size} bytes instead of FileSize {self.size}"
        if self._file_hash is not None and sha256 != self._file_hash:
            return f"hash {sha256} instead of FileHash {self._file_hash}"
        return ""

    async def examine(self, spool: Spool) -> Verdict:
        """Judge what lies in a spool; the NAR inside decides over a doubtful file. Corrupt."""
        try:
            return self.judge(spool.length)
        except Doubtful as doubt:
            if not spool.is_kept:
                raise
            inspector = self.inspector()
            try:
                await spool.reread(inspector)
            except Corrupt as error:
                raise Corrupt(f"{doubt}; {error}") from error
            return self.overrule(inspector, spool.length)

    def inspector(self) -> NarDigest:
        """What is to see every byte of a doubtful file once more, for `overrule`.

        Bounded by NarSize, and by the ratio, as what made the file may be anything.
        """
        return self._new_digest(Ratio(self._max_ratio, self._reached))

    def overrule(self, inspector: NarDigest, size: int) -> Verdict:
        """The last word on a doubtful file. Corrupt, if it is wrong indeed."""
        assert self._sha256 is not None
        return self._inspected(inspector, size, self._complaint(size, self._sha256))

    def _inspected(self, nar: NarDigest, size: int, complaint: str) -> Verdict:
        assert self._sha256 is not None
        if complaint and self._is_named:
            raise Corrupt(complaint)
        prefix = f"{complaint}; " if complaint else ""
        try:
            nar_hash, nar_size = nar.finish()
        except TooDear as error:
            if complaint or self._file_hash is None:
                raise Corrupt(f"{prefix}{error}") from error
            return Verdict(size=size, sha256=self._sha256, nar_verified=False)
        except Corrupt as error:
            raise Corrupt(f"{prefix}{error}") from error
        if nar_hash != self._nar_hash:
            message = f"{prefix}NAR hash {nar_hash} instead of NarHash {self._nar_hash}"
            raise Corrupt(message) if complaint else WrongNar(message, self._sha256)
        if self._nar_size is not None and nar_size != self._nar_size:
            raise Corrupt(f"{prefix}NAR of {nar_size} bytes instead of NarSize {self._nar_size}")
        return Verdict(size=size, sha256=self._sha256, nar_verified=True, complaint=complaint)


async def settled(spool: Spool) -> None:
    """Wait until all bytes are written and hashed. WrongBytes: a digest has found them wrong."""
    try:
        await spool.flush()
    except Corrupt as error:
        raise WrongBytes(str(error)) from error
