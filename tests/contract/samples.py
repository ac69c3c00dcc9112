"""Values for tests of ports; equal arguments return equal values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from attrs import evolve

from ncps.nix.base32 import encode
from ncps.nix.hashes import Hash, sha256_of
from ncps.nix.keys import Signature
from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import NarKey
from ncps.nix.storepath import StorePath
from ncps.ports import NarInfoEntry, NarRecord, Spooled

EARLY = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
_numbers = count()

UPSTREAM = "https://cache.example.org"


def later(seconds: float) -> datetime:
    """Return the time so many seconds after EARLY."""
    return EARLY + timedelta(seconds=seconds)


def digest_of(number: int) -> str:
    """Return the hash part of the numbered store path."""
    return encode(sha256_of(str(number).encode()).digest[:20])


def path_of(number: int) -> StorePath:
    """Return the numbered store path."""
    return StorePath(digest_of(number), f"package-{number}.0")


def key_of(number: int, extension: str = "xz") -> NarKey:
    """Return the key of the numbered NAR."""
    return NarKey(hash_of(f"file {number}").nix32, extension)


def hash_of(text: str) -> Hash:
    """Return the SHA-256 hash of a text."""
    return sha256_of(text.encode())


def record(number: int, **changes: Any) -> NarRecord:
    """Return the record of a NAR that an upstream has and that is not stored."""
    plain = NarRecord(
        key=key_of(number),
        compression="xz",
        file_size=1000 + number,
        file_hash=hash_of(f"file {number}"),
        nar_size=5000 + number,
        nar_hash=hash_of(f"nar {number}"),
        upstream=UPSTREAM,
        origin_url=f"nar/{key_of(number).file_name}?part={number}",
    )
    return evolve(plain, **changes)


def stored(number: int, **changes: Any) -> NarRecord:
    """Return the record of a stored NAR."""
    facts = {
        "encoding": "xz",
        "stored_size": 1000 + number,
        "stored_tag": f"tag {number}",
        "stored_at": EARLY,
    }
    return record(number, **(facts | changes))


def narinfo(number: int, **changes: Any) -> NarInfo:
    """Return the narinfo of the numbered path, whose NAR has the same number."""
    plain = NarInfo(
        store_path=path_of(number),
        url=key_of(number).url,
        compression="xz",
        file_hash=hash_of(f"file {number}"),
        file_size=1000 + number,
        nar_hash=hash_of(f"nar {number}"),
        nar_size=5000 + number,
        references=(path_of(number), path_of(number + 1)),
        deriver=f"{digest_of(number + 2)}-package-{number}.drv",
        system="x86_64-linux",
        signatures=(Signature("cache.example.org-1", bytes(64)), Signature("ours", b"1" * 64)),
        ca="fixed:r:sha256:" + hash_of("content").nix32,
    )
    return evolve(plain, **changes)


def entry(number: int, **changes: Any) -> NarInfoEntry:
    """Return the entry of the numbered narinfo; the changes apply to the entry."""
    plain = NarInfoEntry(
        digest=digest_of(number),
        narinfo=narinfo(number),
        upstream=UPSTREAM,
        upstream_url=f"nar/{key_of(number).file_name}?part={number}",
        verified_by="cache.example.org-1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        signed_by="ours:BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA=",
        fetched_at=EARLY,
    )
    return evolve(plain, **changes)


def spooled(directory: Path, data: bytes) -> Spooled:
    """Return a finished file with these bytes."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"source-{next(_numbers)}"
    path.write_bytes(data)
    return Spooled(path=path, size=len(data), sha256=sha256_of(data))
