"""The cost of a lease in each backend, each in a process of its own: `--only leases`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from benchmarks.report import Figure
from benchmarks.rounds import Spread
from benchmarks.stand import Stand
from ncps.aio.backoff import Backoff
from ncps.assembly.leases import FILE_POLLS
from ncps.database import migrate
from ncps.locks.files import FileBackend
from ncps.locks.local import LocalLeases
from ncps.locks.postgresql.locks import PostgresBackend
from ncps.locks.redis.address import RedisAddress
from ncps.locks.redis.locks import RedisBackend
from ncps.locks.redis.node import redis_nodes
from ncps.locks.shared import LeaseBackend, SharedLeases
from ncps.observe.metrics import Metrics
from ncps.ports import Leases
from tests.integration.databases import dialect_of
from tests.integration.servers.postgresql import PostgreSQL
from tests.integration.servers.redis import Redis

CYCLES = 300
TOGETHER = 32
QUANTITIES = {
    "alone": "take and release, ms",
    "together": f"the same, {TOGETHER} names at the same time, ms each",
    "cpu": "CPU time of this process for one of these, ms",
    "handed": "released here, had by another process, ms",
}
MOST_MS = {"local": 1.0, "files": 2.0, "redis": 5.0, "three redis": 10.0, "postgresql": 10.0}


def measure(stand: Stand) -> list[Figure]:
    """Measure."""
    with ExitStack() as stack:
        redis = [stack.enter_context(Redis()) for _ in range(4)]
        database = stack.enter_context(PostgreSQL())
        url = database.new_database()
        migrate.up(dialect_of(url))
        places = {
            "local": "",
            "files": str(stand.fresh("leases")),
            "redis": str(redis[0].port),
            "three redis": " ".join(str(server.port) for server in redis[1:]),
            "postgresql": url,
        }
        found: dict[tuple[str, str], list[float]] = {}
        for _ in range(stand.rounds):
            for kind, place in places.items():
                for quantity, value in _round(kind, place).items():
                    found.setdefault((kind, quantity), []).append(value)
    return [
        Figure(
            point=f"lease, {kind}",
            quantity=QUANTITIES[quantity],
            ours=Spread(values),
            most=MOST_MS[kind] if quantity == "alone" else None,
            digits=".2f",
        )
        for (kind, quantity), values in found.items()
    ]


def _round(kind: str, place: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.leases", kind]
    done = subprocess.run(command, input=place, capture_output=True, text=True, check=True)
    values: dict[str, float] = json.loads(done.stdout)
    return values


def _backend(reactor: Any, kind: str, place: str) -> LeaseBackend:
    if kind == "files":
        return FileBackend(Path(place))
    if kind == "postgresql":
        return PostgresBackend(reactor, dialect_of(place), ttl_s=15.0)
    places = [
        RedisAddress(addresses=(("127.0.0.1", int(port)),), timeout_s=2.0) for port in place.split()
    ]
    nodes = redis_nodes(reactor, places, prefix="ncps:", subject="what must be fetched cannot be")
    return RedisBackend(reactor, nodes, ttl_of=lambda _name: 15.0)


async def _cycle(leases: Leases, name: str) -> None:
    async with leases.hold(name):
        pass


async def _times(here: Leases, there: Leases) -> dict[str, float]:
    alone, handed = [], []
    for number in range(CYCLES):
        began = time.perf_counter()
        await _cycle(here, f"download:nar:{number:052}.nar.xz")
        alone.append(time.perf_counter() - began)
    began, began_cpu = time.perf_counter(), time.process_time()
    for _ in range(CYCLES // TOGETHER):
        names = [f"download:nar:{number:052}.nar.xz" for number in range(TOGETHER)]
        await gatherResults([Deferred.fromCoroutine(_cycle(here, name)) for name in names])
    count = CYCLES // TOGETHER * TOGETHER
    together = (time.perf_counter() - began) / count
    cpu = (time.process_time() - began_cpu) / count
    for _ in range(CYCLES // 10):
        lease = await here.try_hold("handed")
        assert lease is not None, "released before"
        other = Deferred.fromCoroutine(_cycle(there, "handed"))
        await there.try_hold("handed on")  # after this answer, the other one has checked and waits
        began = time.perf_counter()
        await lease.release()
        await other
        handed.append(time.perf_counter() - began)
    return {
        "alone": median(alone) * 1000,
        "together": together * 1000,
        "cpu": cpu * 1000,
        "handed": median(handed) * 1000,
    }


async def _run(reactor: Any, kind: str, place: str) -> None:
    if kind == "local":
        leases = LocalLeases(reactor, Metrics())
        print(json.dumps(await _times(leases, leases)))
        return
    polls = FILE_POLLS if kind == "files" else Backoff(first_s=0.1, longest_s=0.5)
    both = [
        SharedLeases(
            reactor, _backend(reactor, kind, place), polls=polls, metrics=Metrics(), mode=kind
        )
        for _ in range(2)
    ]
    for each in both:
        await each.start()
    print(json.dumps(await _times(*both)))
    for each in both:
        await each.stop(5)


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(_run(reactor, sys.argv[1], sys.stdin.read())))
