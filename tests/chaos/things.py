"""The objects of a storm, and their right facts."""

from __future__ import annotations

import hashlib

from attrs import frozen

from tests.system.caches import EXTENSIONS, StorePath, to_base32

VARIANTS = 4
"""Number of files of one NAR in one compression that can have opaque names."""


@frozen
class Thing:
    """An object of the world.

    :param homes: the origins that have it.
    :param other: the same NAR in another file, which the origins in `strangers` have.
    :param facts: the fields that every narinfo of it must have, except those of the file.
    :param is_private: whether only the private origin has it, signed by its own key.
    """

    path: StorePath
    homes: frozenset[int]
    facts: dict[str, str]
    other: StorePath | None = None
    strangers: frozenset[int] = frozenset()
    is_private: bool = False

    @property
    def paths(self) -> list[StorePath]:
        """The path in its file, and in the other file."""
        return [path for path in (self.path, self.other) if path is not None]

    @property
    def conventional(self) -> list[StorePath]:
        """Those of `paths` whose URL has the hash of the file, also at the upstream."""
        return [path for path in self.paths if name_of(path.url) in spelled(path.file)]

    @property
    def files(self) -> list[bytes]:
        """The bytes that may be behind a URL of it."""
        return [path.file for path in self.paths]

    def homes_of(self, beginning: bytes) -> frozenset[int]:
        """Return the origins with the file that begins like this: only they can continue it."""
        is_this = self.file.startswith(beginning)
        if self.other is None or (is_this and self.other.file.startswith(beginning)):
            return self.homes
        return self.homes - self.strangers if is_this else self.strangers

    def is_told_truly(self, file_hash: str | None, file_size: str | None) -> bool:
        """Return whether FileHash and FileSize are missing, or those of a file of it."""
        return any(
            file_hash in {None, f"sha256:{to_base32(hashlib.sha256(file).digest())}"}
            and file_size in {None, str(len(file))}
            for file in self.files
        )

    @property
    def file(self) -> bytes:
        """The bytes behind its URL."""
        return self.path.file


def name_of(url: str) -> str:
    return url.rpartition("/")[2].partition(".nar")[0]


def spelled(data: bytes) -> set[str]:
    """Return a hash in the spelling of names."""
    digest = hashlib.sha256(data).digest()
    return {digest.hex(), to_base32(digest)}


def opaque(nar: bytes) -> set[str]:
    """Return the opaque names of a NAR.

    They are its NarHash, and for further files values made from NarHash, compression and a number.
    """
    nar_hash = to_base32(hashlib.sha256(nar).digest())
    words = {f"{name}:{nar_hash}:{number}" for name in EXTENSIONS for number in range(1, VARIANTS)}
    made = {to_base32(hashlib.sha256(word.encode()).digest()) for word in words}
    return spelled(nar) | made


def facts_of(path: StorePath) -> dict[str, str]:
    return {
        "StorePath": path.path,
        "NarHash": f"sha256:{to_base32(hashlib.sha256(path.nar).digest())}",
        "NarSize": str(len(path.nar)),
        "References": "",
    }
