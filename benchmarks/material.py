"""Material to serve: narinfos and NARs from a fixed seed, in a directory that nginx can serve.

A NAR holds one file of blocks that differ only in a counter at their start. It is made quickly in
any size, without memory for all of it. To code that does not compress, it is like random bytes.
"""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from attrs import frozen

from ncps.codec import encoder
from ncps.nix.narurl import EXTENSIONS
from tests.system.caches import TestKey, pack_nar, to_base32

KEY = TestKey.of("benchmarks.test-1")
BLOCK = 1 << 20
_END = 16  # bytes of the NAR after the padding of the contents


@frozen(kw_only=True)
class MadeNar:
    """A NAR and its narinfo.

    :param digest: the hash part of its store path.
    :param size: bytes of its file.
    :param sha256: hash of its file.
    """

    digest: str
    path: str
    narinfo: bytes
    size: int
    sha256: bytes


def nar_blocks(contents: int, seed: int) -> Iterator[bytes]:
    """Yield a NAR of one file with `contents` bytes, a multiple of 8."""
    base = random.Random(seed).randbytes(BLOCK)
    empty = pack_nar(b"")
    yield empty[: -_END - 8] + struct.pack("<Q", contents)
    for number in range(0, contents, BLOCK):
        block = struct.pack("<QQ", seed, number) + base[16:]
        yield block[: contents - number]
    yield empty[-_END:]


@cache
def _text() -> bytes:
    """Return a megabyte that compresses to about a quarter, as programs do."""
    noise = random.Random(1)
    words = [noise.randbytes(noise.randrange(4, 12)) for _ in range(4000)]
    text = b"".join([words[int(noise.triangular(0, 4000, 0))] for _ in range(BLOCK // 4)])
    return text[:BLOCK]


@cache
def _packed_text(compression: str) -> bytes:
    return _packed(compression, _text())


def _packed(compression: str, data: bytes) -> bytes:
    made = encoder(compression)
    return made.feed(data) + made.finish()


def packed_nar(size: int, compression: str, seed: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield a NAR of one file in pieces, each with its own compressed stream.

    :param size: approximate size of the compressed file in bytes.
    """
    text, packed = _text(), _packed_text(compression)
    count = size // len(packed)
    empty = pack_nar(b"")
    head = empty[: -_END - 8] + struct.pack("<QQ", 8 + count * BLOCK, seed)
    yield head, _packed(compression, head)
    for _ in range(count):
        yield text, packed
    yield empty[-_END:], _packed(compression, empty[-_END:])


def describe(sha256: bytes, size: int, noise: random.Random) -> MadeNar:
    """Write the narinfo of an uncompressed NAR."""
    base_name = f"{to_base32(noise.randbytes(20))}-measured"
    url = f"nar/{to_base32(sha256)}.nar"
    return MadeNar(
        digest=base_name[:32],
        path=f"/{url}",
        narinfo=_narinfo(base_name, url, "none", sha256, size, sha256, size, ()),
        size=size,
        sha256=sha256,
    )


def _narinfo(
    base_name: str,
    url: str,
    compression: str,
    file_hash: bytes,
    file_size: int,
    nar_hash: bytes,
    nar_size: int,
    references: tuple[str, ...],
) -> bytes:
    spelled = f"sha256:{to_base32(nar_hash)}"
    full = ",".join(f"/nix/store/{name}" for name in references)
    fingerprint = f"1;/nix/store/{base_name};{spelled};{nar_size};{full}"
    return (
        f"StorePath: /nix/store/{base_name}\nURL: {url}\nCompression: {compression}\n"
        f"FileHash: sha256:{to_base32(file_hash)}\nFileSize: {file_size}\n"
        f"NarHash: {spelled}\nNarSize: {nar_size}\nReferences: {' '.join(references)}\n"
        f"Sig: {KEY.sign(fingerprint)}\n"
    ).encode()


class Material:
    """A binary cache in a directory.

    :param noise: the source of names and bytes.
    """

    def __init__(self, directory: Path, noise: random.Random) -> None:
        self.directory = directory
        self._noise = noise
        (directory / "nar").mkdir(parents=True)
        info = "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n"
        (directory / "nix-cache-info").write_text(info)

    def narinfos(self, count: int) -> list[str]:
        """Write narinfos of about 1,100 bytes, without NARs; return their digests."""
        noise = self._noise
        names = [f"{to_base32(noise.randbytes(20))}-package-{n}.{n % 7}" for n in range(count)]
        for name in names:
            references = tuple(sorted(noise.sample(names, noise.randrange(1, 20))))
            file_hash, nar_hash = noise.randbytes(32), noise.randbytes(32)
            size = noise.randrange(1000, 10**7)
            url = f"nar/{to_base32(file_hash)}.nar.xz"
            text = _narinfo(name, url, "xz", file_hash, size, nar_hash, size * 4, references)
            (self.directory / f"{name[:32]}.narinfo").write_bytes(text)
        return [name[:32] for name in names]

    def nar(self, contents: int) -> MadeNar:
        """Write one more NAR and its narinfo."""
        digest = hashlib.sha256()
        size = 0
        unfinished = self.directory / "nar" / "unfinished"
        with unfinished.open("wb") as file:
            for block in nar_blocks(contents, self._noise.getrandbits(63)):
                digest.update(block)
                size += file.write(block)
        made = describe(digest.digest(), size, self._noise)
        unfinished.rename(f"{self.directory}{made.path}")
        (self.directory / f"{made.digest}.narinfo").write_bytes(made.narinfo)
        return made

    def packed(self, size: int, compression: str) -> MadeNar:
        """Write one more NAR whose compressed file has about `size` bytes, and its narinfo."""
        nar, file = hashlib.sha256(), hashlib.sha256()
        nar_size = file_size = 0
        unfinished = self.directory / "nar" / "unfinished"
        with unfinished.open("wb") as out:
            for piece, packed in packed_nar(size, compression, self._noise.getrandbits(63)):
                nar.update(piece)
                file.update(packed)
                nar_size += len(piece)
                file_size += out.write(packed)
        base_name = f"{to_base32(self._noise.randbytes(20))}-measured"
        url = f"nar/{to_base32(file.digest())}.nar.{EXTENSIONS[compression]}"
        facts = (file.digest(), file_size, nar.digest(), nar_size)
        made = MadeNar(
            digest=base_name[:32],
            path=f"/{url}",
            narinfo=_narinfo(base_name, url, compression, *facts, ()),
            size=file_size,
            sha256=file.digest(),
        )
        unfinished.rename(f"{self.directory}{made.path}")
        (self.directory / f"{made.digest}.narinfo").write_bytes(made.narinfo)
        return made

    def remove(self, made: MadeNar) -> None:
        """Delete a NAR, but not its narinfo."""
        Path(f"{self.directory}{made.path}").unlink()
