"""Narinfo hits with a token, compared with those of a daemon whose reads are open."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from functools import partial
from statistics import median

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from benchmarks import narinfo_hits
from benchmarks.material import KEY
from benchmarks.report import Figure
from benchmarks.rounds import ANCHOR, OURS, Spread, alternate
from benchmarks.stand import Stand
from ncps.aio.tasks import Tasks
from ncps.auth.credentials import Credentials, read_authorization
from ncps.auth.guard import AccessRules, Guard
from ncps.auth.principal import Principal, Scope
from ncps.auth.tokens import DatabaseTokens, digest_of, new_token
from ncps.ports import Token
from tests.e2e.daemon import Daemon, UpstreamCache
from tests.fakes.tokens import MemoryTokens
from tests.system.program import run_ncps

LEAST = 0.7
MOST_US = 20.0
TOKENS = 1000
CHECKS = 20_000


def measure(stand: Stand) -> list[Figure]:
    """Measure."""
    upstreams = [UpstreamCache(stand.origin.url(), KEY.public)]
    with Daemon(stand.fresh("tokens"), upstreams) as daemon:
        listed, size = narinfo_hits.prepare(stand, stand.daemon)
        narinfo_hits.prepare(stand, daemon)
        made = run_ncps(daemon, "token", "create", "--name", "wrk")
        (token,) = re.findall(r"ncps_\S+", made.stdout)
        daemon.stop()
        daemon.options = ("--auth-reads", "token")
        daemon.start()
        run = partial(
            narinfo_hits.wrk,
            listed=listed,
            seconds=stand.seconds,
            least_bytes=size,
        )
        contenders = {
            ANCHOR: partial(run, stand.daemon.url, stand.daemon.pid),
            OURS: partial(run, daemon.url, daemon.pid, headers=(f"Authorization: Bearer {token}",)),
        }
        alternate(contenders, rounds=1, noise=stand.noise)  # warm
        series = alternate(contenders, rounds=stand.rounds, noise=stand.noise, steady="rate")
    point = "narinfo hit by a token, beside open reads"
    return [*narinfo_hits.figures_of(series, point, LEAST), _check(stand.rounds)]


def _check(rounds: int) -> Figure:
    """Measure the processor time of the guard alone, from the header to the decision."""
    clock = Clock()
    rows = MemoryTokens()
    secrets = [new_token() for _ in range(TOKENS)]
    for number, secret in enumerate(secrets):
        rows.rows[str(number)] = Token(
            id=str(number),
            name=f"t{number}",
            digest=digest_of(secret),
            scopes=frozenset({"read"}),
            created_at=datetime.fromtimestamp(0, UTC),
        )
    rows.number = 1
    source = DatabaseTokens(rows, clock, Tasks(clock), max_age_s=3600.0)
    Deferred.fromCoroutine(source.look())
    guard = Guard([source], AccessRules(reads_are_open=False))
    fields = [f"Bearer {secret}".encode() for secret in secrets]
    spent = []
    for _ in range(rounds):
        began = time.process_time()
        for number in range(CHECKS):
            bearer, user, password = read_authorization(fields[number % TOKENS])
            shown = Credentials(bearer=bearer, user=user, password=password)
            if not isinstance(guard.admit(shown, Scope.READ), Principal):
                raise AssertionError("the guard did not accept a valid token")
        spent.append((time.process_time() - began) / CHECKS * 1e6)
    return Figure(
        point=f"token check, {TOKENS} tokens",
        quantity="µs",
        ours=Spread([median(spent)]),
        most=MOST_US,
        digits=".1f",
    )
