"""Sample store paths: bytes, their narinfo as an upstream would sign it, and the keys."""

from __future__ import annotations

from random import Random
from typing import Any

from attrs import evolve, frozen

from ncps.codec import encoder
from ncps.nix import base32
from ncps.nix.hashes import sha256_of
from ncps.nix.keys import SecretKey
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


def sample(name: str = "hello", size: int = 300_000, compression: str = "xz") -> Sample:
    """Make a store path whose every byte follows from its name."""
    random = Random(name)
    nar = random.randbytes(size)
    maker = encoder(compression)
    file = maker.feed(nar) + maker.finish()
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
