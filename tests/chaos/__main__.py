"""Run storms: `python -m tests.chaos --seed 7 8 9 --requests 10000 --clients 64 --long`.

`--replicas 3 --database mariadb` runs them over three replicas. The output ends with the table of
docs/testing.md.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
import time
from pathlib import Path

from attrs import evolve

from tests.chaos import crowd
from tests.chaos.crowd import Crowd, Scale
from tests.chaos.replicas import ReplicaStorm
from tests.chaos.score import Score
from tests.chaos.storm import Storm
from tests.chaos.table import table
from tests.cluster.replicas import SERVERS
from tests.e2e.bench import remove_tree

DATABASES = {name.lower(): name for name in SERVERS}


def main() -> int:
    """Print the events and the table; return 1 if a promise was broken."""
    options = _options()
    make = crowd.long if options.long else crowd.short
    scale = make(options.requests) if options.requests else make()
    if options.clients:
        scale = evolve(scale, clients=options.clients)
    seeds = options.seed or [secrets.randbelow(1_000_000)]
    database = DATABASES[options.database] if options.replicas > 1 else ""
    scores = {
        seed: _run(seed, scale, database, options.away_answer, is_kept=options.keep)
        for seed in seeds
    }
    print("\n".join(table(scores)))
    return 1 if any(score.broken for score in scores.values()) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, nargs="+", help="decides all but time; default: any")
    parser.add_argument("--long", action="store_true", help="10,000 requests, six ends of ncps")
    parser.add_argument("--requests", type=int)
    parser.add_argument("--clients", type=int)
    parser.add_argument("--replicas", type=int, choices=[1, 3], default=1)
    parser.add_argument("--database", choices=DATABASES, default="postgresql", help="of replicas")
    parser.add_argument(
        "--away-answer", choices=["absent", "error"], default="absent", help="as the setting has it"
    )
    parser.add_argument("--keep", action="store_true", help="keep the directory of the daemon")
    return parser.parse_args()


def _run(seed: int, scale: Scale, database: str, away_answer: str, *, is_kept: bool) -> Score:
    """Run one storm, over replicas if a database is named."""
    directory = Path(tempfile.mkdtemp(prefix="ncps-chaos-"))
    began = time.monotonic()

    def tell(text: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {text}", flush=True)

    try:
        storm: Crowd
        if database:
            storm = ReplicaStorm(
                seed, scale, directory / "ncps", tell, away_answer, database=database
            )
        else:
            storm = Storm(seed, scale, directory / "ncps", tell, away_answer)
        score = storm.run()
    finally:
        if is_kept:
            print(f"kept: {directory}")
        else:
            remove_tree(directory)
    print(score.table())
    for detail in score.details[:50]:
        print(f"BROKEN {detail}")
    print(
        f"seed {seed}: " + ("a promise was broken" if score.broken else "no promise was broken"),
        flush=True,
    )
    return score


if __name__ == "__main__":
    sys.exit(main())
