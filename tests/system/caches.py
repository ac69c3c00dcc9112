"""Synthetic binary caches in every known dialect, for the lying origin.

Written without a line of `ncps.nix`, from the formats' descriptions alone, so that agreement
between the two is evidence. Everything follows from a seed: the same seed gives the same store
paths, bytes and signatures. Store paths are not content-addressed, so only signatures make a
client believe them.
"""

from __future__ import annotations

import base64
import bz2
import gzip
import hashlib
import lzma
import random
import struct
import uuid
import zlib
from collections.abc import Sequence
from enum import Enum
from functools import lru_cache

import brotli
import lz4.frame
import zstandard
from attrs import evolve, field, frozen
from nacl.signing import SigningKey

from tests.system.faults import Encoded, Fault
from tests.system.origin import Origin

ALPHABET = "0123456789abcdfghijklmnpqrsvwxyz"
LARGE = 100_000
"""Random bytes beyond which the encoder stores them without compressing."""
EXTENSIONS = {"none": "", "xz": ".xz", "zstd": ".zst", "bzip2": ".bz2", "br": ".br", "lz4": ".lz4"}


class Dialect(Enum):
    """The names and fields with which a cache describes its NARs."""

    PLAIN = "nar/<file hash>.nar.<ext>, as Nix writes it"
    HEX = "the file hash in the name is hexadecimal"
    NIX_SERVE = "nar/<store path hash>-<nar hash>.nar"
    UUID = "nar/<random UUID>.nar.<ext>, as Cachix does"
    SNIX = "nar/snix-castore/<opaque>?narsize=<size>, uncompressed, as snix does"
    ATTIC = "nar/<nar hash>.nar under every compression, as Attic does"
    BARE = "neither FileHash nor FileSize"
    ZERO_SIZE = "FileSize is 0"
    ENCODED = "the wire carries Content-Encoding zstd, as Harmonia's does"
    UNSTATED = "no Compression field, which means bzip2"
    HEX_FIELDS = "hashes in the narinfo are hexadecimal"


def to_base32(data: bytes) -> str:
    """Encode bytes as Nix does: 5 bits a character, the last bits first."""
    number = int.from_bytes(data, "little")
    length = (len(data) * 8 - 1) // 5 + 1
    return "".join(ALPHABET[number >> (5 * place) & 31] for place in reversed(range(length)))


def pack_nar(content: bytes, *, executable: bool = False) -> bytes:
    """Return the NAR of a single file."""

    def text(data: bytes) -> bytes:
        return struct.pack("<Q", len(data)) + data + bytes(-len(data) % 8)

    mode = [b"executable", b""] if executable else []
    tokens = [b"(", b"type", b"regular", *mode, b"contents", content, b")"]
    return b"".join(map(text, [b"nix-archive-1", *tokens]))


@lru_cache(16)
def compress(data: bytes, compression: str) -> bytes:
    """Compress data as the Compression field of a narinfo says.

    Most tests have the same NARs, whose noise follows from a seed; xz takes 1 s for 3 MB of it.
    """
    match compression:
        case "none":
            return data
        case "xz":
            return lzma.compress(data, preset=0)
        case "zstd":
            return zstandard.ZstdCompressor().compress(data)
        case "bzip2":
            return bz2.compress(data)
        case "br":
            return bytes(brotli.compress(data, quality=1))
        case "gzip":
            return gzip.compress(data, mtime=0)
        case "lz4":
            return bytes(lz4.frame.compress(data))
    raise ValueError(compression)


def stored_xz(data: bytes) -> bytes:
    """Return an .xz file with uncompressed pieces, which takes no time.

    The encoder of liblzma makes such pieces of noise, too, but tries for 0.4 s per MB before.
    """

    def number(value: int) -> bytes:
        digits = []
        while value >= 0x80:
            digits.append(value & 0x7F | 0x80)
            value >>= 7
        return bytes((*digits, value))

    def checked(part: bytes) -> bytes:
        part += bytes(-len(part) % 4)
        return part + struct.pack("<I", zlib.crc32(part))

    flags = b"\0\1"  # each block has a CRC32
    head = checked(b"\2\0\x21\1\x16")  # LZMA2 with a dictionary of 8 MiB
    piece = 65536
    pieces = [data[at : at + piece] for at in range(0, len(data), piece)]
    packed = b"".join(
        struct.pack(">BH", 2 if at else 1, len(each) - 1) + each for at, each in enumerate(pieces)
    )
    block = head + packed + b"\0"
    size = len(block) + 4  # with its checksum, but without its padding
    block += bytes(-len(block) % 4) + struct.pack("<I", zlib.crc32(data))
    index = checked(b"\0" + number(1) + number(size) + number(len(data)))
    tail = struct.pack("<I", len(index) // 4 - 1) + flags
    start = b"\xfd7zXZ\0" + flags + struct.pack("<I", zlib.crc32(flags))
    return start + block + index + struct.pack("<I", zlib.crc32(tail)) + tail + b"YZ"


@frozen
class TestKey:
    """A signing key made from a seed."""

    __test__ = False

    name: str
    key: SigningKey

    @classmethod
    def of(cls, name: str) -> TestKey:
        """Return the key of this name, always the same."""
        return cls(name, SigningKey(hashlib.sha256(name.encode()).digest()))

    @property
    def public(self) -> str:
        """As in trusted-public-keys."""
        return f"{self.name}:{base64.b64encode(bytes(self.key.verify_key)).decode()}"

    def sign(self, fingerprint: str) -> str:
        """As in a Sig field."""
        signature = self.key.sign(fingerprint.encode()).signature
        return f"{self.name}:{base64.b64encode(signature).decode()}"


@frozen(kw_only=True)
class StorePath:
    """A path of a synthetic cache with all facts about it.

    :param url: the URL field.
    :param file: the bytes behind the URL, without any Content-Encoding.
    :param references: base names.
    """

    base_name: str
    nar: bytes = field(repr=False)
    file: bytes = field(repr=False)
    url: str
    compression: str
    references: tuple[str, ...] = ()
    dialect: Dialect = Dialect.PLAIN
    key: TestKey

    @property
    def digest(self) -> str:
        """The 32 characters in the name of the narinfo."""
        return self.base_name[:32]

    @property
    def path(self) -> str:
        """The full store path."""
        return f"/nix/store/{self.base_name}"

    @property
    def nar_target(self) -> str:
        """The target of a request for the NAR at the origin, below the cache's prefix."""
        return f"/{self.url}"

    @property
    def fingerprint(self) -> str:
        """The signed text."""
        references = ",".join(f"/nix/store/{name}" for name in sorted(self.references))
        nar_hash = f"sha256:{to_base32(hashlib.sha256(self.nar).digest())}"
        return f"1;{self.path};{nar_hash};{len(self.nar)};{references}"

    def fields(self) -> list[tuple[str, str]]:
        """Return the narinfo's lines."""

        def spell(data: bytes) -> str:
            digest = hashlib.sha256(data).digest()
            as_hex = self.dialect is Dialect.HEX_FIELDS
            return f"sha256:{digest.hex() if as_hex else to_base32(digest)}"

        lines = [("StorePath", self.path), ("URL", self.url)]
        if self.dialect is not Dialect.UNSTATED:
            lines.append(("Compression", self.compression))
        if self.dialect is not Dialect.BARE:
            size = 0 if self.dialect is Dialect.ZERO_SIZE else len(self.file)
            lines += [("FileHash", spell(self.file)), ("FileSize", str(size))]
        lines += [
            ("NarHash", spell(self.nar)),
            ("NarSize", str(len(self.nar))),
            ("References", " ".join(self.references)),
            ("Sig", self.key.sign(self.fingerprint)),
        ]
        return lines

    def narinfo(self, **changes: str | None) -> bytes:
        """Return the narinfo with some fields replaced, added, or left out (None)."""
        values: dict[str, str | None] = {**dict(self.fields()), **changes}
        return "".join(f"{k}: {v}\n" for k, v in values.items() if v is not None).encode()


class SyntheticCache:
    """Store paths made from a seed, to be put onto an origin.

    :param key: makes all signatures.
    """

    def __init__(self, seed: int = 1, *, key: TestKey | None = None) -> None:
        self.key = key or TestKey.of("synthetic.test-1")
        self.paths: list[StorePath] = []
        self._seed = seed
        self._noise = random.Random(seed)

    def add(
        self,
        size: int = 1000,
        *,
        compression: str = "xz",
        dialect: Dialect = Dialect.PLAIN,
        references: Sequence[StorePath] = (),
        itself: bool = False,
        content: bytes | None = None,
        nar: bytes | None = None,
    ) -> StorePath:
        """Make one more path: a file of `size` random bytes, or of `content`, or this NAR.

        :param itself: whether it refers to itself.
        """
        if dialect in (Dialect.SNIX, Dialect.ZERO_SIZE, Dialect.NIX_SERVE):
            compression = "none"
        elif dialect is Dialect.UNSTATED:
            compression = "bzip2"
        is_noise = nar is None and content is None
        if nar is None:
            nar = pack_nar(self._noise.randbytes(size) if content is None else content)
        is_stored = compression == "xz" and is_noise and size > LARGE
        file = stored_xz(nar) if is_stored else compress(nar, compression)
        base_name = f"{to_base32(self._noise.randbytes(20))}-made-{len(self.paths)}"
        names = [path.base_name for path in references] + ([base_name] if itself else [])
        path = StorePath(
            base_name=base_name,
            nar=nar,
            file=file,
            url=self._url(dialect, base_name, nar, file, compression),
            compression=compression,
            references=tuple(sorted(names)),
            dialect=dialect,
            key=self.key,
        )
        self.paths.append(path)
        return path

    def _url(
        self, dialect: Dialect, base_name: str, nar: bytes, file: bytes, compression: str
    ) -> str:
        nar_name = to_base32(hashlib.sha256(nar).digest())
        file_digest = hashlib.sha256(file).digest()
        extension = EXTENSIONS.get(compression, "")
        match dialect:
            case Dialect.HEX:
                return f"nar/{file_digest.hex()}.nar{extension}"
            case Dialect.NIX_SERVE:
                return f"nar/{base_name[:32]}-{nar_name}.nar"
            case Dialect.UUID:
                unique = uuid.UUID(bytes=self._noise.randbytes(16), version=4)
                return f"nar/{unique}.nar{extension}"
            case Dialect.SNIX:
                name = base64.urlsafe_b64encode(self._noise.randbytes(33)).decode()
                return f"nar/snix-castore/{name}?narsize={len(nar)}"
            case Dialect.ATTIC:
                return f"nar/{nar_name}.nar"
        return f"nar/{to_base32(file_digest)}.nar{extension}"

    def info(self, *, priority: int = 40) -> bytes:
        """Return nix-cache-info."""
        return f"StoreDir: /nix/store\nWantMassQuery: 1\nPriority: {priority}\n".encode()

    def mount(self, origin: Origin, prefix: str = "", *nar_faults: Fault) -> str:
        """Put the whole cache onto an origin; return its base URL.

        :param nar_faults: for every NAR.
        """
        origin.serve(f"{prefix}/nix-cache-info", self.info())
        for path in self.paths:
            self.mount_path(origin, path, prefix, *nar_faults)
        return origin.url + prefix

    def mount_path(
        self, origin: Origin, path: StorePath, prefix: str = "", *nar_faults: Fault
    ) -> None:
        """Put one path's narinfo and NAR onto an origin, or put them there again."""
        origin.serve(
            f"{prefix}/{path.digest}.narinfo",
            path.narinfo(),
            headers=[("Content-Type", "text/x-nix-narinfo")],
        )
        wire: tuple[Fault, ...] = (Encoded("zstd"),) if path.dialect is Dialect.ENCODED else ()
        origin.serve(
            prefix + path.nar_target,
            path.file,
            *(*nar_faults, *wire),
            headers=[("Content-Type", "application/x-nix-nar")],
        )


def recompressed(path: StorePath) -> StorePath:
    """Return the same NAR in another file, as another cache has it."""
    match path.compression:
        case "xz":
            file = lzma.compress(path.nar, lzma.FORMAT_XZ, lzma.CHECK_SHA256, 0)
        case "zstd":
            parameters = zstandard.ZstdCompressor(level=1, write_checksum=True)
            file = parameters.compress(path.nar)
        case "bzip2":
            file = bz2.compress(path.nar, 1)
        case _:
            raise ValueError(path.compression)
    name = to_base32(hashlib.sha256(file).digest())
    url = f"nar/{name}.nar{EXTENSIONS[path.compression]}"
    return evolve(path, file=file, url=url)


def forged(path: StorePath, *, key: TestKey) -> StorePath:
    """Return the same path with a signature by another key."""
    return evolve(path, key=key)
