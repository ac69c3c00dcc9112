"""Uploads by PUT, compared with nginx's WebDAV; `nix copy`, compared with one to a directory."""

from __future__ import annotations

import hashlib
import lzma
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import zstandard

from benchmarks.closure import made
from benchmarks.go_program import GoDaemon
from benchmarks.material import BLOCK, nar_blocks
from benchmarks.nginx import Nginx
from benchmarks.processes import cpu_seconds
from benchmarks.report import Figure, compared
from benchmarks.rounds import ANCHOR, GO, OURS, Sample, Series, alternate
from benchmarks.stand import Stand
from tests.e2e.closure import Closure
from tests.e2e.daemon import Daemon, UpstreamCache
from tests.system.caches import to_base32

SIZES = {"none": 256 << 20, "zstd": 256 << 20, "xz": 64 << 20}
"""Bytes of the file in a NAR, by the compression of the upload."""

ENDINGS = {"none": "", "zstd": ".zst", "xz": ".xz"}
DIRECTORY = "directory"
SERVERS = {"nginx with WebDAV": "keep", "a server that drops everything": "drop"}
"""Lower bounds for a copy: servers that check nothing, and write nothing durably."""
WRITE = ("--cache-allow-put-verb",)


def measure(stand: Stand) -> list[Figure]:
    """Measure."""
    daemon = Daemon(stand.fresh("uploads"), _no_upstream(), options=WRITE)
    daemon.start()
    nginx = Nginx(stand.fresh("dav"), uploads="keep")
    daemons = {OURS: daemon}
    if stand.go is not None:
        daemons[GO] = GoDaemon(stand.go, stand.fresh("go"), _no_upstream(), options=WRITE)
        daemons[GO].start()
    try:
        figures = []
        for compression in SIZES:
            series = _puts(stand, daemons, nginx, compression)
            figures += _figures(series, compression)
        return figures + _copies(stand)
    finally:
        nginx.stop()
        for each in daemons.values():
            each.kill()


def _no_upstream() -> Sequence[UpstreamCache]:
    return [UpstreamCache("http://127.0.0.1:9", "nobody-1:" + "A" * 43 + "=")]


def _puts(stand: Stand, daemons: Mapping[str, Daemon], nginx: Nginx, compression: str) -> Series:
    directory = stand.fresh("files")
    directory.mkdir()
    fresh = partial(_file, stand, directory, compression)
    contenders = {ANCHOR: partial(_put, fresh, nginx.url(), nginx.pid)}
    for name, daemon in daemons.items():
        contenders[name] = partial(_put, fresh, f"{daemon.url}/upload/nar", daemon.pid)
    return alternate(contenders, rounds=stand.rounds, noise=stand.noise)


def _file(stand: Stand, directory: Path, compression: str) -> Path:
    """Write the file of a new NAR, with its name of the upload."""
    noise = random.Random(stand.noise.getrandbits(63))
    encode: Callable[[bytes], bytes] = bytes
    finish: Callable[[], bytes] = bytes
    if compression == "zstd":
        encoder = zstandard.ZstdCompressor(level=3).compressobj()
        encode, finish = encoder.compress, encoder.flush
    elif compression == "xz":
        packer = lzma.LZMACompressor(preset=0)
        encode, finish = packer.compress, packer.flush
    digest, unfinished = hashlib.sha256(), directory / "unfinished"
    with unfinished.open("wb") as file:
        for block in _nar(SIZES[compression], noise):
            data = encode(block)
            digest.update(data)
            file.write(data)
        data = finish()
        digest.update(data)
        file.write(data)
    return unfinished.rename(directory / f"{to_base32(digest.digest())}.nar{ENDINGS[compression]}")


def _nar(contents: int, noise: random.Random) -> Iterator[bytes]:
    """Yield a NAR of one incompressible file."""
    first, *_, last = nar_blocks(contents, 0)
    yield first
    for _ in range(contents // BLOCK):
        yield noise.randbytes(BLOCK)
    yield last


def _put(fresh: Callable[[], Path], url: str, pid: int) -> Sample:
    """Upload a file that is new to the server."""
    path = fresh()
    size = path.stat().st_size
    before, began = cpu_seconds(pid), time.monotonic()
    done = subprocess.run(
        ["curl", "-sf", "-o", "/dev/null", "-T", path, f"{url}/{path.name}"], check=False
    )
    seconds = time.monotonic() - began
    cpu = cpu_seconds(pid) - before
    path.unlink()
    return {
        "rate": size / seconds / 2**20,
        "cpu": cpu / (size / 2**30),
        "errors": done.returncode,
    }


def _figures(series: Series, compression: str) -> list[Figure]:
    return [
        compared(
            series,
            quantity,
            point=f"upload of a NAR of {SIZES[compression] >> 20} MiB, {compression}",
            label=label,
            least=0.5 if quantity == "rate" else None,
            digits=digits,
        )
        for quantity, label, digits in (
            ("rate", "MiB/s", ",.0f"),
            ("cpu", "CPU, s/GiB", ".2f"),
        )
    ]


def _copies(stand: Stand) -> list[Figure]:
    closure, _ = made(stand)
    contenders: dict[str, Callable[[], Sample]] = {
        DIRECTORY: partial(_into_directory, stand, closure),
        OURS: lambda: _into(closure, Daemon(stand.fresh("daemon"), _no_upstream(), options=WRITE)),
    }
    if (go := stand.go) is not None:
        contenders[GO] = lambda: _into(
            closure, GoDaemon(go, stand.fresh("go"), _no_upstream(), options=WRITE)
        )
    for name, uploads in SERVERS.items():
        contenders[name] = partial(_into_nginx, stand, closure, uploads)
    series = alternate(contenders, rounds=stand.rounds, noise=stand.noise)
    point = f"nix copy --to of {len(closure.paths)} paths, zstd"
    ours = compared(
        series, "seconds", point=point, label="s (nginx: file://)", anchor=DIRECTORY, digits=".2f"
    )
    others = [
        Figure(
            point=f"{point}: {name} in place of ncps",
            quantity="s (nginx: file://)",
            anchor=series.spread(DIRECTORY, "seconds"),
            ours=series.spread(name, "seconds"),
            ratio=series.ratio("seconds", ours=name, anchor=DIRECTORY),
            digits=".2f",
        )
        for name in SERVERS
    ]
    return [ours, *others]


def _into_directory(stand: Stand, closure: Closure) -> Sample:
    return _copy(closure, f"file://{stand.fresh('copied')}?compression=zstd")


def _into_nginx(stand: Stand, closure: Closure, uploads: str) -> Sample:
    nginx = Nginx(stand.fresh("nginx-uploads"), uploads=uploads)
    try:
        return _copy(closure, f"{nginx.url()}?compression=zstd")
    finally:
        nginx.stop()


def _into(closure: Closure, daemon: Daemon) -> Sample:
    """Copy into a daemon whose store is empty."""
    daemon.start()
    try:
        return _copy(closure, f"{daemon.url}/upload?compression=zstd")
    finally:
        daemon.kill()


def _copy(closure: Closure, target: str) -> Sample:
    client = closure.client
    began = time.monotonic()
    client.run("nix", "copy", "--from", str(client.store), "--to", target, closure.root)
    return {"seconds": time.monotonic() - began, "errors": 0}
