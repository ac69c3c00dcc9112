"""Levels of zstd for twins: bytes, time to make them, and time that a client takes (D4).

    python -m benchmarks.levels

Prints a table. Times are seconds of a processor, which a busy machine hardly changes. A client
downloads and unpacks at the same time, so the slower of both counts.
"""

from __future__ import annotations

import lzma
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from attrs import frozen

from benchmarks.warm import contents
from ncps.codec import decoder, zstd

LEVELS: Final = (3, 6, 9, 12, 15, 17, 19)
SIZE: Final = 4 << 20
LINKS: Final = (("100 Mbit/s", 12.5e6), ("1 Gbit/s", 125e6))
CORES: Final = (1, 4)
SOURCES: Final = (Path("/usr/lib/python3"), Path(os.__file__).parent)


@frozen(kw_only=True)
class Measured:
    """A way to compress, and what it costs for all files.

    :ivar make_s: seconds of a processor, as `unpack_s`.
    """

    name: str
    size: int
    make_s: float
    unpack_s: float

    def client_s(self, bytes_per_s: float, cores: int) -> float:
        """Return the seconds of a client that unpacks as many NARs at a time as it has cores."""
        return max(self.size / bytes_per_s, self.unpack_s / cores)


def sources(size: int) -> bytes:
    """Return the texts of Python modules of this machine."""
    found = bytearray()
    for directory in SOURCES:
        for path in sorted(directory.rglob("*.py")):
            if len(found) < size:
                found += path.read_bytes()
    return bytes(found[:size])


def measure(
    name: str, files: Sequence[bytes], compression: str, encode: Callable[[bytes], bytes]
) -> Measured:
    """Compress and unpack all files."""
    began = time.process_time()
    encoded = [encode(file) for file in files]
    made = time.process_time()
    for data, file in zip(encoded, files, strict=True):
        codec, size = decoder(compression), 0
        for piece in codec.feed(data):
            size += len(piece)
        codec.finish()
        assert size == len(file)
    unpacked = time.process_time()
    return Measured(
        name=name,
        size=sum(map(len, encoded)),
        make_s=made - began,
        unpack_s=unpacked - made,
    )


def ways(files: Sequence[bytes]) -> Iterator[Measured]:
    """Give xz as the public caches have it, and zstd at each level."""
    yield measure("xz 6", files, "xz", lambda data: lzma.compress(data, preset=6))
    for level in LEVELS:

        def encode(data: bytes, level: int = level) -> bytes:
            encoder = zstd.encoder(level, threads=1, size=len(data))
            return encoder.feed(data) + encoder.finish()

        yield measure(f"zstd {level}", files, "zstd", encode)


def main() -> None:
    """Print the tables."""
    libraries = [contents(number, SIZE) for number in range(8)]
    for title, files in (("libraries", libraries), ("Python modules", [sources(6 * SIZE)])):
        total = sum(map(len, files))
        sys.stdout.write(f"\n{title}, {total / 1e6:.0f} MB\n\n")
        links = [
            f"client, {link}, {cores} core{'s' if cores > 1 else ''}"
            for link, _ in LINKS
            for cores in CORES
        ]
        heads = ("file", "size, xz is 1", "to make", "to unpack", *links)
        sys.stdout.write("| " + " | ".join(heads) + " |\n")
        sys.stdout.write("| --- |" + " ---: |" * (len(heads) - 1) + "\n")
        first = None
        for way in ways(files):
            first = first or way
            times = [way.client_s(rate, cores) for _, rate in LINKS for cores in CORES]
            cells = (way.size / first.size, way.make_s, way.unpack_s, *times)
            sys.stdout.write(f"| {way.name} | " + " | ".join(f"{x:.2f}" for x in cells) + " |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
