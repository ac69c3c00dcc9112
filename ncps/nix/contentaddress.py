"""Content addresses: the CA field of a narinfo, and the store path that follows from it.

    text:sha256:H           a file with these contents, written by `builtins.toFile`
    fixed:ALGORITHM:H       a file with these contents, fetched
    fixed:r:ALGORITHM:H     a tree whose NAR has this hash

A store path is the hash of such a text, of its name and, for `text:` and `fixed:r:sha256:`, of its
references. If the path follows from a content address, and the contents have the hash H, the path
is proven better than by a signature. A content address from which another path follows proves
nothing. These rules agree with Nix 2.8 and 2.26 (content-address.cc, store-api.cc). `fixed:git:`
and the algorithms of newer releases are not supported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final, Literal, Self

from attrs import frozen

from ncps.errors import Malformed
from ncps.nix import base32
from ncps.nix.hashes import Hash
from ncps.nix.references import References
from ncps.nix.storepath import STORE_DIR, StorePath

Method = Literal["text", "flat", "nar"]
"""The hashed bytes: the contents of a file (`text`, `flat`), or a NAR."""

_PREFIXES: Final[dict[Method, str]] = {"text": "text:", "flat": "fixed:", "nar": "fixed:r:"}
_DIGEST_SIZE = 20  # bytes of the hash part of a store path


@frozen
class ContentAddress:
    """The hash of the contents of a store path. Raises Malformed if Nix has no such address.

    `str` returns the form in narinfos, with the hash in nix32.
    """

    method: Method
    hash: Hash

    def __attrs_post_init__(self) -> None:
        if self.method == "text" and self.hash.algorithm != "sha256":
            raise Malformed(f"text: goes with sha256, not with {self.hash.algorithm}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``text:…``, ``fixed:…`` or ``fixed:r:…``, the hash in nix32, hex or base64.

        Raises Malformed for everything else, also for forms that only newer releases of Nix have.
        """
        if text.startswith("text:"):
            method: Method = "text"
        elif text.startswith("fixed:r:"):
            method = "nar"
        elif text.startswith("fixed:"):
            method = "flat"
        else:
            raise Malformed(f"not a content address: {text[:64]!r}")
        algorithm, colon, _ = (rest := text.removeprefix(_PREFIXES[method])).partition(":")
        if not colon:
            raise Malformed(f"a content address without an algorithm: {text[:64]!r}")
        return cls(method, Hash.parse(rest, algorithm))

    @property
    def is_source(self) -> bool:
        """Whether a path with this address may refer to itself; only `fixed:r:sha256:` may."""
        return self.method == "nar" and self.hash.algorithm == "sha256"

    def store_path(
        self, name: str, references: Iterable[StorePath] = (), *, refers_to_itself: bool = False
    ) -> StorePath:
        """Return the store path with this name. Raises Malformed if there can be none.

        :param references: the other paths that it refers to.
        """
        paths = References.of(references).texts
        if refers_to_itself and not self.is_source:
            raise Malformed(f"a path with {_PREFIXES[self.method]} cannot refer to itself")
        if self.method == "text":
            return _path(":".join(("text", *paths)), self.hash, name)
        if self.is_source:
            itself = ("self",) if refers_to_itself else ()
            return _path(":".join(("source", *paths, *itself)), self.hash, name)
        if paths:
            raise Malformed(f"a path with {_PREFIXES[self.method]} has no references")
        mode = "r:" if self.method == "nar" else ""
        inner = f"fixed:out:{mode}{self.hash.algorithm}:{self.hash.hex}:"
        return _path("output:out", Hash.of_sha256(_sha256(inner)), name)

    def proves(self, path: StorePath, references: Iterable[StorePath]) -> bool:
        """Return whether this path with these references follows from the address.

        :param references: with the path itself, if it refers to itself.
        """
        everything = References.of(references)
        refers_to_itself = path in everything
        others = everything.without(path)
        try:
            return path == self.store_path(path.name, others, refers_to_itself=refers_to_itself)
        except Malformed:
            return False

    def __str__(self) -> str:
        return f"{_PREFIXES[self.method]}{self.hash}"


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode("ascii")).digest()


def _path(kind: str, inner: Hash, name: str) -> StorePath:
    outer = _sha256(f"{kind}:{inner.algorithm}:{inner.hex}:{STORE_DIR}:{name}")
    folded = bytearray(_DIGEST_SIZE)
    for index, byte in enumerate(outer):
        folded[index % _DIGEST_SIZE] ^= byte
    return StorePath(base32.encode(bytes(folded)), name)
