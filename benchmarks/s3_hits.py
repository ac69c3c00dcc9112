"""NAR hits from S3, compared with direct requests to the S3 server: `--only s3`."""

from __future__ import annotations

import hashlib
import http.client
import time
from functools import partial
from statistics import median

import boto3
from botocore.config import Config

from benchmarks.material import KEY
from benchmarks.processes import cpu_seconds
from benchmarks.report import Figure
from benchmarks.rounds import ANCHOR, OURS, Sample, alternate
from benchmarks.shared import SharedDaemon, s3_flags
from benchmarks.stand import Stand, get, sink
from tests.e2e.daemon import UpstreamCache
from tests.integration.servers.radosgw import RadosGW

SIZE = 256 << 20
FIRST_BYTES = 40
STORED_S = 120.0


def measure(stand: Stand) -> list[Figure]:
    """Measure."""
    made = stand.material.nar(SIZE)
    with RadosGW() as server:
        directory = stand.fresh("s3")
        flags = s3_flags(server)
        daemon = SharedDaemon(
            directory,
            [UpstreamCache(stand.origin.url(), KEY.public)],
            *("--cache-database-url", f"sqlite:{directory}/catalog.sqlite"),
            *flags,
        )
        daemon.start()
        try:
            get(daemon.port, f"/{made.digest}.narinfo")
            get(daemon.port, made.path)
            _wait_for_hit(daemon.port, made.path)
            if hashlib.sha256(get(daemon.port, made.path)).digest() != made.sha256:
                raise AssertionError("wrong bytes")
            port, target = _direct(server, flags[3], made.path)
            contenders = {
                ANCHOR: partial(_pull, port, None, target, stand.seconds),
                OURS: partial(_pull, daemon.port, daemon.pid, made.path, stand.seconds),
            }
            series = alternate(contenders, rounds=stand.rounds, noise=stand.noise)
        finally:
            daemon.kill()
    point = "NAR hit from S3, 1 connection (beside S3 itself)"
    return [
        Figure(
            point=point,
            quantity="MiB/s",
            anchor=series.spread(ANCHOR, "rate"),
            ours=series.spread(OURS, "rate"),
            ratio=series.ratio("rate"),
        ),
        Figure(
            point=point,
            quantity="first byte, ms",
            anchor=series.spread(ANCHOR, "first_ms"),
            ours=series.spread(OURS, "first_ms"),
            digits=".2f",
        ),
        Figure(point=point, quantity="CPU, s/GiB", ours=series.spread(OURS, "cpu"), digits=".2f"),
    ]


def _wait_for_hit(port: int, path: str) -> None:
    end = time.monotonic() + STORED_S
    while time.monotonic() < end:
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        line.request("HEAD", path)
        outcome = line.getresponse().headers.get("X-Cache")
        line.close()
        if outcome == "hit":
            return
        time.sleep(0.1)
    raise AssertionError(f"{path} is not stored")


def _direct(server: RadosGW, bucket: str, path: str) -> tuple[int, str]:
    """Return the port and the presigned target of the object of a NAR."""
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name=server.region,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        config=Config(s3={"addressing_style": "path"}, signature_version="s3v4"),
    )
    name = path.rpartition("/")[2]
    url = client.generate_presigned_url(
        "get_object",
        Params={"Bucket": bucket, "Key": f"store/nar/{name[0]}/{name[:2]}/{name}"},
        ExpiresIn=3600,
    )
    place, _, target = url.removeprefix("http://").partition("/")
    return int(place.rpartition(":")[2]), f"/{target}"


def _pull(port: int, pid: int | None, path: str, seconds: int) -> Sample:
    before = cpu_seconds(pid) if pid is not None else 0.0
    found = sink("pull", port, path, 1, seconds)
    cpu = cpu_seconds(pid) - before if pid is not None else 0.0
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    waits = []
    for number in range(FIRST_BYTES):
        began = time.perf_counter()
        line.request("GET", path, headers={"Range": f"bytes={number << 20}-{(number << 20) + 99}"})
        response = line.getresponse()
        response.read(1)
        waits.append((time.perf_counter() - began) * 1000)
        response.read()
    line.close()
    return {
        "rate": found["bytes"] / found["seconds"] / 2**20,
        "first_ms": median(waits),
        "cpu": cpu / (found["bytes"] / 2**30),
        "errors": found["errors"],
    }
