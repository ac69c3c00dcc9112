"""Hashes: read in every notation of Nix, written in one."""

from __future__ import annotations

import hashlib
from binascii import a2b_base64, unhexlify
from collections.abc import Mapping
from functools import lru_cache
from typing import Self

from attrs import frozen

from ncps.errors import Malformed
from ncps.nix import base32

SIZES: Mapping[str, int] = {"md5": 16, "sha1": 20, "sha256": 32, "sha512": 64}
"""Digest size in bytes of each algorithm that Nix knows."""


@frozen
class Hash:
    """A digest and the algorithm that made it; always of the right length.

    `str` returns the form in narinfos, ``sha256:<nix32>``.
    """

    algorithm: str
    digest: bytes

    def __attrs_post_init__(self) -> None:
        size = _size(self.algorithm)
        if len(self.digest) != size:
            raise Malformed(f"a {self.algorithm} digest is {size} bytes, not {len(self.digest)}")

    @classmethod
    def of_sha256(cls, digest: bytes) -> Self:
        """Wrap the 32 bytes of a finished SHA-256."""
        return cls("sha256", digest)

    @classmethod
    def parse(cls, text: str, algorithm: str | None = None) -> Self:
        """Read ``sha256:<nix32, hex or base64>`` or the SRI form ``sha256-<base64>``.

        With `algorithm`, the prefix may be missing; if there is one, it must name that algorithm.
        The length of the digest determines the notation. Raises Malformed if it is no hash.
        """
        if algorithm in _SHA256 and text.startswith("sha256:"):
            return cls.of_sha256(_sha256(text))
        prefix, separator, digest = text.partition(":")
        if separator:
            return cls._read(prefix, digest, expected=algorithm)
        prefix, separator, digest = text.partition("-")
        if separator:
            return cls(_agreed(prefix, algorithm), _base64(digest))
        if algorithm is None:
            raise Malformed(f"hash without algorithm: {text[:128]!r}")
        return cls._read(algorithm, text, expected=None)

    @classmethod
    def _read(cls, algorithm: str, digest: str, *, expected: str | None) -> Self:
        return cls(algorithm, _bytes(_agreed(algorithm, expected), digest))

    @property
    def nix32(self) -> str:
        """The digest in nix32, without the algorithm: 52 characters for SHA-256."""
        return _nix32(self.digest)

    @property
    def hex(self) -> str:
        """The digest in lower-case hexadecimal, without the algorithm."""
        return self.digest.hex()

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.nix32}"


def sha256_of(data: bytes) -> Hash:
    """Hash `data` with SHA-256."""
    return Hash.of_sha256(hashlib.sha256(data).digest())


@lru_cache(maxsize=4096)
def _nix32(digest: bytes) -> str:
    """Return a digest in nix32; cached, because a request formats one digest a dozen times."""
    return base32.encode(digest)


_SHA256 = frozenset({None, "sha256"})


@lru_cache(maxsize=4096)
def _sha256(text: str) -> bytes:
    """Read ``sha256:<...>``; cached, because narinfo and row have the same hashes."""
    return _bytes("sha256", text[7:])


def _bytes(algorithm: str, text: str) -> bytes:
    """Return the bytes of a digest; its length determines the notation."""
    size, length = _size(algorithm), len(text)
    if length == size * 2:
        return _hex(text)
    if length == (size * 8 + 4) // 5:
        return base32.decode(text)
    return _base64(text)


def _size(algorithm: str) -> int:
    try:
        return SIZES[algorithm]
    except KeyError:
        raise Malformed(f"unknown hash algorithm {algorithm[:32]!r}") from None


def _agreed(algorithm: str, expected: str | None) -> str:
    if expected is not None and algorithm != expected:
        raise Malformed(f"expected a {expected} hash, got {algorithm[:32]!r}")
    return algorithm


def _hex(text: str) -> bytes:
    try:
        return unhexlify(text)
    except ValueError:
        raise Malformed("a digest in hexadecimal has foreign characters") from None


def _base64(text: str) -> bytes:
    try:
        return a2b_base64(text, strict_mode=True)
    except ValueError:
        raise Malformed("a digest is neither nix32 nor hexadecimal nor base64") from None
