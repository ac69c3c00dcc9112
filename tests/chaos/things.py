"""The objects of a chaos run, and what is true of them."""

from __future__ import annotations

import hashlib

from attrs import frozen

from tests.system.caches import EXTENSIONS, StorePath, to_base32

VARIANTS = 4
"""How many files of one NAR in one compression may have an opaque name each."""


@frozen
class Thing:
    """An object of the world.

    :param homes: the origins that have it.
    :param other: the same NAR in another file, which `strangers` have instead.
    :param facts: the fields that every narinfo of it must have, those of the file aside.
    :param is_private: whether the private origin alone has it, under its own key.
    """

    path: StorePath
    homes: frozenset[int]
    facts: dict[str, str]
    other: StorePath | None = None
    strangers: frozenset[int] = frozenset()
    is_private: bool = False

    @property
    def paths(self) -> list[StorePath]:
        """It, and it in the other file."""
        return [path for path in (self.path, self.other) if path is not None]

    @property
    def conventional(self) -> list[StorePath]:
        """Those of `paths` whose URL is named by the hash of the file, upstream as well."""
        return [path for path in self.paths if name_of(path.url) in spelled(path.file)]

    @property
    def files(self) -> list[bytes]:
        """The bytes that may lie behind a URL of it."""
        return [path.file for path in self.paths]

    def homes_of(self, beginning: bytes) -> frozenset[int]:
        """The origins that have the file that begins like this: only they can go on with it."""
        is_this = self.file.startswith(beginning)
        if self.other is None or (is_this and self.other.file.startswith(beginning)):
            return self.homes
        return self.homes - self.strangers if is_this else self.strangers

    def is_told_truly(self, file_hash: str | None, file_size: str | None) -> bool:
        """Whether FileHash and FileSize of a narinfo are those of a file of it, or left out."""
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
    """A hash as it stands in names."""
    digest = hashlib.sha256(data).digest()
    return {digest.hex(), to_base32(digest)}


def opaque(nar: bytes) -> set[str]:
    """The names of a NAR that are not the hash of a file.

    Its NarHash, and where several files of it lie behind URLs, what is made of NarHash, compression
    and a number.
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
