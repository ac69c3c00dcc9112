"""Sample store paths: bytes, their narinfo as an upstream would sign it, and the keys."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from functools import cache
from random import Random
from typing import Any

from attrs import evolve, frozen

from ncps.codec import encoder
from ncps.nix import base32
from ncps.nix.contentaddress import ContentAddress, Method
from ncps.nix.hashes import Hash, sha256_of
from ncps.nix.keys import SecretKey
from ncps.nix.nar import FILE_HEAD, file_tail
from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import EXTENSIONS, NarKey, opaque_key
from ncps.nix.storepath import StorePath

UPSTREAM_KEY = SecretKey.generate("cache.example.org-1")
OWN_KEY = SecretKey.generate("here.example.org")


@frozen(kw_only=True)
class Sample:
    """A store path in a binary cache.

    :param nar: the NAR before compression (any bytes: nobody looks into them here).
    :param file: the bytes behind the URL.
    :param narinfo: signed by `UPSTREAM_KEY`.
    """

    nar: bytes
    file: bytes
    narinfo: NarInfo

    @property
    def digest(self) -> str:
        return self.narinfo.store_path.digest

    @property
    def url(self) -> str:
        return self.narinfo.url

    @property
    def key(self) -> NarKey:
        """The name that it is served under."""
        return opaque_key(self.narinfo.compression, self.narinfo.nar_hash)

    @property
    def conventional(self) -> NarKey:
        """The name that its upstream has for the file."""
        return NarKey.parse(self.url.rpartition("/")[2])

    def altered(self, **changes: Any) -> Sample:
        """The same path with another narinfo, signed anew."""
        return evolve(self, narinfo=signed(evolve(self.narinfo, **changes)))


def signed(narinfo: NarInfo, key: SecretKey = UPSTREAM_KEY) -> NarInfo:
    """The narinfo with one signature, of this key."""
    return evolve(narinfo, signatures=(key.sign(narinfo.fingerprint()),))


def file_sample(
    name: str = "hello",
    compression: str = "xz",
    *,
    method: Method = "flat",
    algorithm: str = "sha256",
) -> Sample:
    """Make an unsigned path of one file, to which its content address leads."""
    contents = f"contents of {name}\n".encode() * 5000
    nar = FILE_HEAD + len(contents).to_bytes(8, "little") + contents + file_tail(len(contents))
    digest = Hash(algorithm, hashlib.new(algorithm, contents).digest())
    return addressed(packed(name, nar, compression), ContentAddress(method, digest))


def tree_sample(name: str = "tree", compression: str = "xz", algorithm: str = "sha256") -> Sample:
    """Make an unsigned path of any NAR, to which its content address leads."""
    one = packed(name, Random(name).randbytes(300_000), compression)
    digest = Hash(algorithm, hashlib.new(algorithm, one.nar).digest())
    return addressed(one, ContentAddress("nar", digest))


def addressed(one: Sample, address: ContentAddress, *references: StorePath) -> Sample:
    """The same bytes, unsigned, under the path that follows from a content address."""
    path = address.store_path(one.narinfo.store_path.name, references)
    narinfo = evolve(
        one.narinfo, store_path=path, references=references, ca=str(address), signatures=()
    )
    return evolve(one, narinfo=narinfo)


def sample(name: str = "hello", size: int = 300_000, compression: str = "xz") -> Sample:
    """Make a store path whose every byte follows from its name."""
    return packed(name, Random(name).randbytes(size), compression)


def packed(name: str, nar: bytes, compression: str) -> Sample:
    """Make a store path of this NAR."""
    random = Random(f"path of {name}")
    file = compressed(nar, compression)
    extension = EXTENSIONS.get(compression, "")
    key = NarKey(sha256_of(file).nix32, extension)
    narinfo = NarInfo(
        store_path=StorePath(base32.encode(random.randbytes(20)), f"{name}-1.0"),
        url=key.url,
        compression=compression,
        file_hash=sha256_of(file),
        file_size=len(file),
        nar_hash=sha256_of(nar),
        nar_size=len(nar),
    )
    return Sample(nar=nar, file=file, narinfo=signed(narinfo))


@cache
def compressed(nar: bytes, compression: str = "zstd") -> bytes:
    """Compress a NAR once for all tests that have it: xz takes 0.15 s."""
    maker = encoder(compression)
    return maker.feed(nar) + maker.finish()


def sri(digest: Hash) -> str:
    """Write a hash as Subresource Integrity does, ``sha256-<base64>``."""
    return f"{digest.algorithm}-{b64encode(digest.digest).decode('ascii')}"
