"""The command `ncps nar recompress`, which writes a NAR in zstd.

It reads, decompresses, checks, compresses and writes the file piece by piece. Before the new file
gets its name, another library than the one that compressed it reads it again.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from attrs import frozen

from ncps.codec import zstd
from ncps.codec.magic import compression_of
from ncps.codec.stream import TooDear
from ncps.errors import Corrupt, Refused
from ncps.nix.hashes import Hash
from ncps.nix.nar import MAGIC
from ncps.nix.transcode import pieces_of, prove, transcode
from ncps.storage.directories import sync_directory
from ncps.storage.os_errors import reading, writing

_ENDINGS: Final = (signal.SIGTERM, signal.SIGHUP)
"""Signals that end the command; the second one comes when its terminal is closed."""
SUFFIXES: Final = (".xz", ".lzma", ".bz2", ".bzip2", ".zst", ".zstd", ".br", ".gz", ".gzip", ".lz4")
"""Endings of compressed files, which the ending of the new file replaces."""


@frozen(kw_only=True)
class Recompression:
    """The arguments of the command.

    :param target: None for the source's name with another ending.
    :param threads: 0 for one per processor.
    :param replaces: whether a file with the target's name is replaced.
    """

    source: Path
    target: Path | None = None
    level: int = 9
    threads: int = 1
    is_long: bool = False
    replaces: bool = False


@frozen
class _Unfinished:
    """The new file, under a temporary name."""

    file: IO[bytes]
    path: Path

    def write(self, data: bytes) -> None:
        """Append. Raises StorageFull if the disk is full, Unavailable if the write fails."""
        with writing(str(self.path)):
            self.file.write(data)


def command(options: Namespace) -> int:
    """Run the command with its parsed arguments; see `recompress`."""
    return recompress(
        Recompression(
            source=Path(options.file),
            target=None if options.output is None else Path(options.output),
            level=options.level,
            threads=options.threads,
            is_long=options.long,
            replaces=options.force,
        )
    )


def recompress(wanted: Recompression) -> int:
    """Recompress a file and print the fields of a narinfo for the new file.

    Raises Refused if the file is no NAR in a known compression or the new file may not have its
    name, Corrupt if the file is damaged, StorageFull or Unavailable if a read or write fails.
    """
    target = _target(wanted)
    with reading(str(wanted.source)), wanted.source.open("rb") as source:
        compression = _compression(source, wanted.source)
        with _beside(target) as new:
            read, nar_hash, nar_size = _convert(source, new, compression, wanted)
            file_hash, size = _proven(new, nar_hash)
            _publish(new.path, target, replaces=wanted.replaces)
    sys.stdout.write(
        f"{target}: {read} bytes of {compression} became {size} bytes of zstd ({size / read:.1%});"
        f" ratio {nar_size / size:.2f}\n"
        f"Compression: zstd\nFileHash: {file_hash}\nFileSize: {size}\n"
        f"NarHash: {nar_hash}\nNarSize: {nar_size}\n"
    )
    return 0


def _target(wanted: Recompression) -> Path:
    source = wanted.source
    if source.is_dir():
        raise Refused(f"{source} is a directory: name the file of a NAR")
    if source.exists() and not source.is_file():
        raise Refused(f"{source} is a pipe or a device: name the file of a NAR")
    stem = source.with_suffix("") if source.suffix in SUFFIXES else source
    target = wanted.target or stem.with_name(f"{stem.name}.zst")
    with writing(str(target)):
        is_there = target.exists()
        is_file = target.is_file()
        is_source = is_there and source.exists() and target.samefile(source)
    if is_source:
        raise Refused(f"{target} is the file to read: name another one with --output")
    if is_there and not is_file:
        raise Refused(f"{target} is not a file: name a file with --output")
    if is_there and not wanted.replaces:
        raise _taken(target)
    return target


def _taken(target: Path) -> Refused:
    return Refused(f"{target} exists: name another file with --output, or replace it with --force")


def _compression(source: IO[bytes], path: Path) -> str:
    """Return the compression of a file. Raises Refused if the file cannot be a NAR."""
    head = source.read(len(MAGIC))
    source.seek(0)
    if head == MAGIC:
        return "none"
    found = compression_of(head) or ("br" if path.suffix == ".br" else None)
    if found is None:
        raise Refused(
            f"{path} is no NAR: expected one as Nix writes it, or in xz, bzip2, zstd, gzip, lz4, or"
            " (with the ending .br) in Brotli"
        )
    return found


def _convert(
    source: IO[bytes], new: _Unfinished, compression: str, wanted: Recompression
) -> tuple[int, Hash, int]:
    """Write the new file; return the number of bytes read, NarHash and NarSize."""
    threads = wanted.threads or os.cpu_count() or 1
    encoder = zstd.encoder(
        wanted.level, threads=0 if threads == 1 else threads, is_long=wanted.is_long
    )
    try:
        read = transcode(pieces_of(source), compression, encoder, new.write, listing=True)
    except TooDear as error:
        raise Refused(f"{wanted.source} cannot be read: {error}") from error
    except Corrupt as error:
        raise Corrupt(f"{wanted.source} is damaged, or no NAR: {error}") from error
    return read.file_size, read.nar_hash, read.nar_size


def _proven(new: _Unfinished, nar_hash: Hash) -> tuple[Hash, int]:
    """Read the new file; return its hash and size. Raises Corrupt unless it holds this NAR."""
    with writing(str(new.path)):
        new.file.flush()
        os.fsync(new.file.fileno())
    new.file.seek(0)
    try:
        return prove(pieces_of(new.file), nar_hash)
    except Corrupt as error:
        raise Corrupt(f"{new.path} {error}: check the disk") from error


def _publish(new: Path, target: Path, *, replaces: bool) -> None:
    """Give the file its name. Raises Refused if another file has that name meanwhile."""
    with writing(str(target)):
        if replaces:
            new.replace(target)
        else:
            try:
                target.hardlink_to(new)
            except FileExistsError:
                raise _taken(target) from None
        sync_directory(str(target.parent))


@contextmanager
def _beside(target: Path) -> Iterator[_Unfinished]:
    """Yield an unfinished file in the target's directory, and remove it at the end."""
    path = target.with_name(f".{target.name[:50]}.{secrets.token_hex(8)}")
    with writing(str(target)):
        new = path.open("x+b")
    heard = [each for each in _ENDINGS if signal.getsignal(each) is not signal.SIG_IGN]  # nohup
    former = {number: signal.signal(number, _stop) for number in heard}
    try:
        with new:
            yield _Unfinished(new, path)
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        with suppress(OSError):
            path.unlink()


def _stop(number: int, _frame: object) -> None:
    """Raise SystemExit, so that the unfinished file is removed."""
    raise SystemExit(128 + number)
