"""Judge: decides by digests whether the bytes of a file are right.

FileHash and FileSize of a narinfo are not signed, NarHash is. So the NAR inside decides. It is
checked while the bytes arrive, if the check is fast enough (`Look`). If the NAR is right, the file
is right, even if FileHash or FileSize differ. If it is another NAR, a right FileHash does not help.
A file under a conventional name must also have the hash in that name, even if the NAR is right.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final, Protocol

from attrs import frozen

from ncps.codec import is_supported
from ncps.codec.ratio import USUAL, Ratio, most
from ncps.codec.stream import TooDear
from ncps.errors import Corrupt, Malformed, NotFound
from ncps.nix.debuginfo import SymbolSearch
from ncps.nix.hashes import Hash
from ncps.nix.narcheck import FileDigest, NarDigest
from ncps.nix.narurl import NarKey, is_opaque
from ncps.nix.trailing import TrailingDigest

_CHEAP = frozenset({"zstd"})
"""Compressions that decompress in a tenth of the time of the others."""


class Look(Enum):
    """When to check the NAR inside a file if FileHash can decide as well."""

    ALWAYS = "always"
    """While it arrives; the last bytes wait for the check."""
    KEEPING_PACE = "keeping pace"
    """While it arrives, as long as the check is as fast as the bytes."""
    IF_CHEAP = "if cheap"
    """Like KEEPING_PACE, but only for compressions that decompress fast."""


MAX_SIZE: Final = 64 * 1024**3
"""Bytes of a file, at most, if only its name is known."""

SLACK: Final = 1024 * 1024
"""Bytes that a file may have beyond twice its NAR: no compression adds more."""


class FileFacts(Protocol):
    """The facts in a narinfo about a NAR's file; None for each missing fact."""

    @property
    def compression(self) -> str:
        """The compression as the narinfo names it."""

    @property
    def file_size(self) -> int | None:
        """Bytes of the file."""

    @property
    def file_hash(self) -> Hash | None:
        """The hash of the file."""

    @property
    def nar_size(self) -> int | None:
        """Bytes of the NAR inside."""

    @property
    def nar_hash(self) -> Hash | None:
        """The hash of the NAR inside."""


class Unverifiable(Corrupt):
    """There is no hash with which the bytes could be compared."""


class Doubtful(Corrupt):
    """The file differs from its narinfo; the NAR inside was not checked."""


class WrongBytes(Corrupt):
    """The bytes are neither the file nor its beginning."""


class WrongNar(WrongBytes):
    """The file has the FileHash of its narinfo, but another NAR is inside.

    :ivar file_hash: of the file.
    :ivar is_read: whether the NAR inside was read to its end. If not, it could not be decompressed,
        or was too long, and Compression or NarSize may be wrong instead of FileHash.
    """

    def __init__(self, message: str, file_hash: Hash, *, is_read: bool = True) -> None:
        super().__init__(message)
        self.file_hash = file_hash
        self.is_read = is_read


class Disputed(Corrupt):
    """The size of a file differs from its narinfo: the file or the narinfo is wrong."""


@frozen(kw_only=True)
class Verdict:
    """The facts of a file that is right.

    :param nar_verified: whether the NAR inside was compared with NarHash.
    :param complaint: the wrong fact about the file in its narinfo; empty if there is none.
    :param build_ids: of the files with symbols in a verified NAR; see `SymbolSearch`.
    """

    size: int
    sha256: Hash
    nar_verified: bool
    complaint: str = ""
    build_ids: tuple[str, ...] = ()


def _named(key: NarKey) -> Hash:
    try:
        return key.as_hash()
    except Malformed as error:
        raise NotFound(f"{key.file_name} has no hash in its name") from error


def _belongs_to(key: NarKey, nar: FileFacts | None) -> bool:
    """Return whether no other NAR than this one can have the name."""
    return (
        nar is not None
        and nar.nar_hash is not None
        and is_opaque(key, nar.compression, nar.nar_hash)
    )


class Judge:
    """The judge of one file.

    If no narinfo is known, or the name is conventional, the name is the hash. If the narinfo has no
    FileHash, NarHash decides. Raises NotFound if there can be no such file, Unverifiable if there
    is neither a FileHash nor a NAR that can be read.

    :param expected: the facts in the narinfo; None if none is known.
    :param max_ratio: bytes of NAR for a byte of its file. If the narinfo promises more, the NAR is
        checked only if nothing else can verify the file: every miss pays for the check.
    :param reached: called if the file goes beyond `max_ratio`.
    :param look: when NarHash is checked beside FileHash.
    :param is_thorough: whether NarHash is checked beside FileHash at any cost.
    """

    def __init__(
        self,
        key: NarKey,
        expected: FileFacts | None,
        *,
        max_ratio: int = USUAL,
        reached: Callable[[], object] = lambda: None,
        look: Look = Look.ALWAYS,
        is_thorough: bool = False,
    ) -> None:
        self.size = expected.file_size if expected is not None else None
        self._nar_hash = expected.nar_hash if expected is not None else None
        self._is_named = not _belongs_to(key, expected)
        known = expected.file_hash if expected is not None else None
        self._file_hash = _named(key) if self._is_named else known
        self._nar_size = expected.nar_size if expected is not None else None
        self._symbols = SymbolSearch()
        self._sha256: Hash | None = None
        self._nar: NarDigest | None = None
        self._compression = expected.compression if expected is not None else ""
        self._max_ratio = max_ratio
        self._reached = reached
        is_needed = is_wanted = is_thorough or self._file_hash is None
        if not is_wanted and (look is not Look.IF_CHEAP or self._compression in _CHEAP):
            is_wanted = not self._is_beyond(max_ratio)
            if not is_wanted:
                reached()
        is_plain = self._is_uncompressed and self._file_hash == self._nar_hash
        self._file = FileDigest(self.size, self._symbols.feed if is_plain else None)
        if is_wanted and self._is_legible and not is_plain:
            ratio = None if self.size is not None else Ratio(max_ratio, reached)
            self._nar = self._new_digest(ratio)
        self._trailing: TrailingDigest | None = None
        is_awaited = is_needed or look is Look.ALWAYS or self.size is None
        if self._nar is not None and not is_awaited:
            self._trailing = TrailingDigest(self._nar, self.size)
        if self._file_hash is None and self._nar is None:
            raise Unverifiable(
                f"{key.file_name} has no FileHash, and ncps cannot decompress {self._compression}"
            )

    @property
    def can_overrule(self) -> bool:
        """Whether a right NAR inside outweighs a wrong FileHash or FileSize."""
        return self._file_hash is not None and not self._is_named and self._is_legible

    @property
    def _is_uncompressed(self) -> bool:
        return self._compression == "none"

    @property
    def _is_legible(self) -> bool:
        return self._nar_hash is not None and is_supported(self._compression)

    def _new_digest(self, ratio: Ratio | None) -> NarDigest:
        self._symbols = SymbolSearch()
        return NarDigest(
            self._compression,
            max_size=self._nar_size,
            ratio=ratio,
            follow=self._symbols.feed,
        )

    def _is_beyond(self, max_ratio: int) -> bool:
        """Return whether the narinfo promises a NAR that is too large for the check."""
        if self._nar_size is None or self.size is None:
            return False
        return self._nar_size > most(self.size, max_ratio)

    @property
    def digests(self) -> tuple[FileDigest | NarDigest | TrailingDigest, ...]:
        """The digests that need every byte, in order; a trailing one may be given up."""
        inside = self._trailing or self._nar
        return (self._file,) if inside is None else (self._file, inside)

    def judge(self, size: int) -> Verdict:
        """Return the facts of the bytes. May take CPU time.

        Raises Doubtful if only `inspector` can decide, Corrupt if the bytes are wrong.
        """
        self._sha256 = self._sha256 or self._file.finish()
        complaint = self._complaint(size, self._sha256)
        is_given_up = self._trailing is not None and self._trailing.is_given_up
        if self._nar is not None and not is_given_up:
            return self._inspected(self._nar, size, complaint)
        if complaint:
            raise Doubtful(complaint) if self.can_overrule else Corrupt(complaint)
        is_plain = self._is_uncompressed and self._sha256 == self._nar_hash
        return Verdict(
            size=size,
            sha256=self._sha256,
            nar_verified=is_plain,
            build_ids=self._symbols.build_ids if is_plain else (),
        )

    def confirms(self, size: int) -> bool:
        """Return whether the bytes so far can be the whole file; more bytes may follow."""
        try:
            self.judge(size)
        except Corrupt:
            self._sha256 = None
            return False
        return True

    def refused(self, error: Corrupt) -> WrongBytes:
        """Return the error for a file that a digest has refused.

        It is WrongNar if the whole file was hashed by then and is the one that the narinfo names.
        """
        file_hash = self._file_hash
        if self._nar is not None and self._file.finish() == file_hash:
            return WrongNar(str(error), file_hash, is_read=False)
        return WrongBytes(str(error))

    @property
    def most(self) -> int:
        """Bytes of the file, at most, if its size is unknown."""
        if self._nar_size is None:
            return MAX_SIZE
        return self._nar_size if self._is_uncompressed else 2 * self._nar_size + SLACK

    def _complaint(self, size: int, sha256: Hash) -> str:
        if self.size is not None and size != self.size:
            return f"{size} bytes instead of FileSize {self.size}"
        if self._file_hash is not None and sha256 != self._file_hash:
            return f"hash {sha256} instead of FileHash {self._file_hash}"
        return ""

    def inspector(self) -> NarDigest:
        """Return the digest for a second reading of a doubtful file; then call `overrule`.

        NarSize and the ratio limit it, because any program may have made the file.
        """
        return self._new_digest(Ratio(self._max_ratio, self._reached))

    def overrule(self, inspector: NarDigest, size: int) -> Verdict:
        """Return the facts of a doubtful file. Raises Corrupt if the NAR inside is wrong."""
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
        return Verdict(
            size=size,
            sha256=self._sha256,
            nar_verified=True,
            complaint=complaint,
            build_ids=self._symbols.build_ids,
        )
