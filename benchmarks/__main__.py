"""Measure ncps and nginx on this machine: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks import (
    aborted,
    bulk,
    closure,
    crowd,
    databases,
    dead,
    far,
    lag,
    leases,
    machine,
    nar_hits,
    nar_misses,
    narinfo_hits,
    path,
    references,
    replicas,
    s3_hits,
    scale,
    slow_readers,
    start,
    tls,
    tokens,
    tracing,
    upload_memory,
    uploads,
    warm,
    workers,
)
from benchmarks.report import Figure, table
from benchmarks.stand import Stand
from tests.e2e.bench import remove_tree

POINTS: Mapping[str, Callable[[Stand], list[Figure]]] = {
    "narinfo": narinfo_hits.measure,
    "hit": nar_hits.measure,
    "small": nar_hits.measure_small,
    "miss": nar_misses.measure,
    "path": path.measure,
    "crowd": crowd.measure,
    "slow": slow_readers.measure,
    "closure": closure.measure,
    "warm": warm.measure,
    "dead": dead.measure,
    "far": far.measure,
    "databases": databases.measure,
    "s3": s3_hits.measure,
    "replicas": replicas.measure,
    "leases": leases.measure,
    "references": references.measure,
    "aborted": aborted.measure,
    "tls": tls.measure,
    "workers": workers.measure,
    "tokens": tokens.measure,
    "tracing": tracing.measure,
    "uploads": uploads.measure,
    "upload-memory": upload_memory.measure,
    "bulk": bulk.measure,
    "start": start.measure,
    "lag": lag.measure,
    "scale": scale.measure,
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only", choices=list(POINTS), action="append", help="measure this point; repeatable"
    )
    parser.add_argument("--quick", action="store_true", help="measure fewer and shorter rounds")
    parser.add_argument("--rounds", type=int, help="rounds of each point; default 7, quick 3")
    parser.add_argument("--seed", type=int, default=1, help="seed of all data; default 1")
    parser.add_argument("--log", type=Path, help="append the run to this file, as one line of JSON")
    parser.add_argument("--go", type=Path, help="file of the Go program ncps, to measure it, too")
    parser.add_argument("--directory", type=Path, help="directory for temporary files; needs 11 GB")
    return parser.parse_args()


def main() -> int:
    """Measure all points; return 1 if a bound was missed."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and clean up
    directory = Path(tempfile.mkdtemp(prefix="ncps-benchmarks-", dir=options.directory))
    load_before = machine.load()
    began = time.time()
    rounds = options.rounds or (3 if options.quick else 7)
    figures: list[Figure] = []
    try:
        stand = Stand(
            directory,
            random.Random(options.seed),
            rounds=rounds,
            seconds=1 if options.quick else 3,
            go=options.go,
        )
        try:
            for name in options.only or POINTS:
                sys.stderr.write(f"{name} (load {machine.load():.2f}) ...\n")
                figures += POINTS[name](stand)
        finally:
            stand.stop()
    finally:
        remove_tree(directory)
    about = machine.describe()
    load = [load_before, machine.load()]
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print(f"{rounds} rounds, median [least..greatest]; load {load[0]:.2f} to {load[1]:.2f}\n")
    print(table(figures))
    if options.log is not None:
        run = {"began": began, "rounds": rounds, "quick": options.quick, "load": load, **about}
        line = json.dumps({**run, "figures": [figure.as_json() for figure in figures]})
        with options.log.open("a") as log:
            log.write(f"{line}\n")
    return 0 if all(figure.is_met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
