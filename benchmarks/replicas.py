"""The first byte of an arriving NAR, at a first and at a second replica: `--only replicas`."""

from __future__ import annotations

import secrets
import time
from contextlib import ExitStack

from benchmarks.report import Figure
from benchmarks.rounds import Spread
from benchmarks.shared import SharedDaemon, s3_flags
from benchmarks.stand import Stand, get
from tests.e2e.daemon import UpstreamCache
from tests.integration.servers.postgresql import PostgreSQL
from tests.integration.servers.radosgw import RadosGW
from tests.integration.servers.redis import Redis
from tests.system.caches import SyntheticCache
from tests.system.faults import Stall
from tests.system.origin import Origin
from tests.system.wire import Exchange

SIZE = 8 << 20
MOST_MS = 20.0
DEADLINE_S = 60.0


def measure(stand: Stand) -> list[Figure]:
    """Measure."""
    cache = SyntheticCache()
    paths = [cache.add(SIZE, compression="none") for _ in range(3 * stand.rounds)]
    first, second, added = [], [], []
    with ExitStack() as stack:
        database = stack.enter_context(PostgreSQL())
        s3 = stack.enter_context(RadosGW())
        redis = stack.enter_context(Redis())
        origin = stack.enter_context(Origin())
        cache.mount(origin, "", Stall(SIZE // 2))
        shared = (
            *("--cache-database-url", database.new_database()),
            *s3_flags(s3),
            *("--cache-redis-addrs", f"127.0.0.1:{redis.port}"),
            *("--cache-lock-backend", "redis"),
            *("--cluster-secret", secrets.token_hex(16)),
            *("--cache-upstream-idle-timeout", "60s"),
        )
        replicas = []
        for _ in range(2):
            daemon = SharedDaemon(
                stand.fresh("replica"), [UpstreamCache(origin.url, cache.key.public)], *shared
            )
            daemon.extend("--cluster-advertise-url", daemon.url)
            stack.callback(daemon.kill)
            daemon.start()
            replicas.append(daemon)
        a, b = (daemon.port for daemon in replicas)
        for path in paths:
            text = get(a, f"/{path.digest}.narinfo").decode()
            target = "/" + text.partition("\nURL: ")[2].partition("\n")[0]
            get(b, f"/{path.digest}.narinfo")
            origin.hold()
            with ExitStack() as readers:
                leader = Exchange(a, target, deadline=DEADLINE_S)
                readers.callback(leader.close)
                leader.read(1)
                origin.wait_for_stall(path.nar_target)
                joined = _first_byte_ms(a, target, readers)
                relayed = _first_byte_ms(b, target, readers)
                first.append(joined)
                second.append(relayed)
                added.append(relayed - joined)
                origin.release()
    point = "arriving NAR, second replica"
    return [
        Figure(
            point=point,
            quantity="first byte, ms (beside the first replica)",
            anchor=Spread(first),
            ours=Spread(second),
            digits=".2f",
        ),
        Figure(point=point, quantity="added, ms", ours=Spread(added), most=MOST_MS, digits=".2f"),
    ]


def _first_byte_ms(port: int, target: str, readers: ExitStack) -> float:
    began = time.perf_counter()
    exchange = Exchange(port, target, deadline=DEADLINE_S)
    readers.callback(exchange.close)
    exchange.read(1)
    return (time.perf_counter() - began) * 1000
