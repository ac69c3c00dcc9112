"""Sealed files: their bytes are on disk and read-only."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Final

from ncps.errors import Corrupt
from ncps.storage.temps import TempFile, Temps

_COPY_SIZE: Final = 1024 * 1024
_MODE: Final = 0o400


@contextmanager
def sealed(temps: Temps, fill: Callable[[TempFile], None]) -> Iterator[TempFile]:
    """Make a sealed file under a temporary name; remove that name after the block.

    Raises OSError, StorageFull, Unavailable, and the errors of `fill`.

    :param fill: writes the bytes.
    """
    temp = temps.create("temp")
    try:
        fill(temp)
        seal(temp.fd)
        yield temp
    finally:
        temp.discard()
        temp.close()


def seal_file(path: Path, size: int) -> os.stat_result:
    """Seal a finished file; return its properties.

    Raises OSError, and Corrupt if the file has another size.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        facts = os.fstat(fd)
        if facts.st_size != size:
            raise Corrupt(f"{path} has {facts.st_size} bytes, not {size}")
        seal(fd)
        return facts
    finally:
        os.close(fd)


def copy_checked(source: Path, target: TempFile, digest: bytes) -> None:
    """Append a file to another. Raises Corrupt if its SHA-256 differs, OSError if that fails."""
    actual = sha256()
    with source.open("rb", buffering=0) as file:
        while data := file.read(_COPY_SIZE):
            actual.update(data)
            target.write(data)
    if actual.digest() != digest:
        raise Corrupt(f"{source} changed before it was copied")


def digest_of(path: str) -> bytes:
    """Return the SHA-256 of a file's bytes. Raises OSError if they cannot be read."""
    with Path(path).open("rb", buffering=0) as file:
        return file_digest(file, "sha256").digest()


def seal(fd: int) -> None:
    """Make the bytes durable and the file read-only."""
    os.fchmod(fd, _MODE)
    os.fsync(fd)
