"""NAR URLs: the names under which ncps serves NARs, made from the names of upstreams.

Narinfos have three kinds of URLs. Conventional URLs end in ``<hash>.nar[.<extension>]``, in any
directory or on any host, perhaps with a query. nix-serve puts the hash part of the store path and a
dash (or underscore) before the hash. Opaque URLs (UUIDs of Cachix, paths of snix) contain no hash.
Clients of ncps see only ``nar/<name>.nar[.<extension>]``.

A conventional name is the hash of its file. No signature covers the URL of a narinfo, so the URL
may have the name of any other file. A NAR without a proven name gets an opaque name, made from its
NarHash, which is signed. The bytes of a name may never change, so the name also depends on the
compression.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, Self

from attrs import frozen

from ncps.errors import Malformed
from ncps.nix.base32 import ALPHABET
from ncps.nix.hashes import Hash, sha256_of

EXTENSIONS: Mapping[str, str] = {
    "xz": "xz",
    "zstd": "zst",
    "bzip2": "bz2",
    "br": "br",
    "lz4": "lz4",
    "lzip": "lzip",
}
"""Compressions that have an extension; gzip and the rarer ones have none (Nix 2.35)."""

COMPRESSIONS: Mapping[str, str] = {"": "none"} | {end: name for name, end in EXTENSIONS.items()}
"""The compression of each extension."""

_KNOWN = frozenset(EXTENSIONS.values()) | {""}
_NAME = re.compile(f"[{ALPHABET}]{{52}}|[0-9a-f]{{64}}")
_PREFIX = re.compile(f"[{ALPHABET}]{{32}}[-_]")


class UnknownExtension(Malformed):
    """The file name of a NAR has an unknown extension. Clients get 400."""


@frozen
class NarKey:
    """The name of a NAR file, in URLs, in the catalog and in stores; safe in a path.

    :param name: 52 characters of nix32 or 64 of lower-case hexadecimal.
    :param extension: after ``.nar.``, without dot; empty if there is none.
    """

    name: str
    extension: str

    def __attrs_post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None:
            raise Malformed(f"not the name of a NAR: {self.name[:128]!r}")
        if self.extension not in _KNOWN:
            raise UnknownExtension(f"unknown extension of a NAR: {self.extension[:32]!r}")

    @classmethod
    def parse(cls, file_name: str) -> Self:
        """Read ``<name>.nar[.<extension>]``; ``none`` means no extension.

        Raises UnknownExtension if only the extension is wrong, else Malformed.
        """
        name, dot_nar, rest = file_name.partition(".nar")
        if not dot_nar or (rest and rest[0] != "."):
            raise Malformed(f"not the file name of a NAR: {file_name[:128]!r}")
        if rest == ".":
            raise UnknownExtension("empty extension of a NAR")
        extension = rest[1:]
        return cls(name, "" if extension == "none" else extension)

    @property
    def file_name(self) -> str:
        """``<name>.nar[.<extension>]``."""
        return f"{self.name}.nar.{self.extension}" if self.extension else f"{self.name}.nar"

    @property
    def url(self) -> str:
        """The URL field of a narinfo: ``nar/<file name>``."""
        return f"nar/{self.file_name}"

    def as_hash(self) -> Hash:
        """Return the name as a SHA-256. Raises Malformed if it is none."""
        return _spelled(self.name)


@lru_cache(maxsize=4096)
def _spelled(name: str) -> Hash:
    """Read the hash in a name; cached, because each step of an upload needs it."""
    return Hash.parse(name, "sha256")


def _file_name(url: str) -> tuple[str, str]:
    """Return the slash before the last part of a URL's path, or an empty text, and that part."""
    path = url.partition("#")[0].partition("?")[0]
    scheme, separator, rest = path.partition("://")
    if separator and "/" not in scheme:
        path = "/" + rest.partition("/")[2]  # without the authority
    _, slash, file_name = path.rpartition("/")
    return slash, file_name


def last_part(url: str) -> str:
    """Return the file name in a URL: the part after the last slash of its path."""
    return _file_name(url)[1]


def _conventional(file_name: str) -> NarKey:
    prefix = _PREFIX.match(file_name)
    return NarKey.parse(file_name[prefix.end() :] if prefix else file_name)


def named_hash(url: str) -> Hash | None:
    """Return the hash in a URL, of a NAR or of its file; None if there is none."""
    try:
        return _conventional(_file_name(url)[1]).as_hash()
    except Malformed:
        return None


def conventional_key(url: str) -> NarKey | None:
    """Return the conventional name in the URL of an upstream's narinfo; None if there is none.

    Raises Malformed if it is not the URL of a NAR. Compressed files of Attic, and of Nix with gzip,
    have names that end in ``.nar``: such names stay as they are.
    """
    slash, file_name = _file_name(url)
    try:
        return _conventional(file_name)
    except Malformed:
        if not file_name or not (slash or ".nar" in file_name):
            raise Malformed(f"not the URL of a NAR: {url[:256]!r}") from None
    return None


VARIANTS: Final = 4
"""Files of one NAR in one compression that may have names of their own."""


def opaque_key(compression: str, nar_hash: Hash, variant: int = 0) -> NarKey:
    """Return a name for a file of a NAR that no other NAR can have.

    :param variant: below `VARIANTS`; a different number for each different file.
    """
    extension = EXTENSIONS.get(compression, "")
    if not variant and (compression == "none" or extension):
        return NarKey(nar_hash.nix32, extension)
    words = [compression, nar_hash.nix32, *([str(variant)] if variant else [])]
    return NarKey(sha256_of(":".join(words).encode()).nix32, extension)


def is_opaque(key: NarKey, compression: str, nar_hash: Hash) -> bool:
    """Return whether a name is an opaque name of this NAR, so that no other NAR can have it."""
    return any(key == opaque_key(compression, nar_hash, n) for n in range(VARIANTS))
