"""Run a storm: `python -m tests.chaos --seed 7 --requests 10000 --clients 64 --long`."""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
import time
from pathlib import Path

from attrs import evolve

from tests.chaos import crowd
from tests.chaos.crowd import Crowd
from tests.chaos.sister import Sister
from tests.chaos.storm import Storm
from tests.cluster.replicas import SERVERS
from tests.e2e.bench import remove_tree


def main() -> int:
    """Print what happens and the table; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="decides everything but time; default: any")
    parser.add_argument("--long", action="store_true", help="10,000 requests, six ends of ncps")
    parser.add_argument("--requests", type=int)
    parser.add_argument("--clients", type=int)
    parser.add_argument("--replicas", type=int, choices=[1, 3], default=1)
    parser.add_argument(
        "--database",
        choices=[name.lower() for name in SERVERS],
        default="postgresql",
        help="that three replicas share",
    )
    parser.add_argument("--keep", action="store_true", help="keep the directory of the daemon")
    options = parser.parse_args()
    scale = crowd.long() if options.long else crowd.short()
    if options.requests:
        make = crowd.long if options.long else crowd.short
        scale = make(options.requests)
    if options.clients:
        scale = evolve(scale, clients=options.clients)
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    directory = Path(tempfile.mkdtemp(prefix="ncps-chaos-"))
    began = time.monotonic()

    def tell(text: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {text}", flush=True)

    try:
        made: Crowd = Storm(seed, scale, directory / "ncps", tell)
        if options.replicas > 1:
            database = {name.lower(): name for name in SERVERS}[options.database]
            made = Sister(seed, scale, directory / "ncps", tell, database=database)
        score = made.run()
    finally:
        if options.keep:
            print(f"kept: {directory}")
        else:
            remove_tree(directory)
    print(score.table())
    for detail in score.details[:50]:
        print(f"BROKEN {detail}")
    print(f"seed {seed}: " + ("a promise was broken" if score.broken else "no promise was broken"))
    return 1 if score.broken else 0


if __name__ == "__main__":
    sys.exit(main())
