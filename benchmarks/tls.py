"""Narinfo and NAR hits over TLS, compared with nginx with the same certificate."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from benchmarks import nar_hits, narinfo_hits
from benchmarks.material import KEY
from benchmarks.nginx import Nginx
from benchmarks.report import Figure
from benchmarks.rounds import ANCHOR, OURS, alternate
from benchmarks.stand import Stand, get
from tests.e2e.daemon import Daemon, UpstreamCache
from tests.integration.servers.certificates import Authority
from tests.waiting import free_port, wait_until

CONNECTIONS = (1, 25)


def measure(stand: Stand) -> list[Figure]:
    """Measure."""
    directory = stand.fresh("tls")
    authority = Authority(directory, "authority")
    certificate = authority.issue("server", days=30)
    port = free_port()
    options = (
        *("--server-addr", f"https://127.0.0.1:{port}"),
        *("--server-tls-cert-file", str(certificate[0])),
        *("--server-tls-key-file", str(certificate[1])),
    )
    upstreams = [UpstreamCache(stand.origin.url(), KEY.public)]
    with ExitStack() as stack:
        daemon = stack.enter_context(Daemon(directory / "ncps", upstreams, options=options))
        nginx = Nginx(
            directory / "nginx",
            stand.narinfo_files,
            stand.material.directory,
            hold_open=True,
            certificate=certificate,
        )
        stack.callback(nginx.stop)
        return [
            *_narinfos(stand, daemon, f"https://127.0.0.1:{port}", nginx),
            *_nars(stand, daemon, port, nginx, str(authority.path)),
        ]


def _narinfos(stand: Stand, daemon: Daemon, url: str, nginx: Nginx) -> list[Figure]:
    listed, size = narinfo_hits.prepare(stand, daemon)
    least_bytes = size
    run = partial(narinfo_hits.wrk, listed=listed, seconds=stand.seconds, least_bytes=least_bytes)
    contenders = {
        ANCHOR: partial(run, nginx.url().replace("http:", "https:"), nginx.pid),
        OURS: partial(run, url, daemon.pid),
    }
    alternate(contenders, rounds=1, noise=stand.noise)  # warm
    series = alternate(contenders, rounds=stand.rounds, noise=stand.noise, steady="rate")
    return narinfo_hits.figures_of(
        series, f"narinfo hit over TLS, {narinfo_hits.CONNECTIONS} connections"
    )


def _nars(stand: Stand, daemon: Daemon, port: int, nginx: Nginx, authority: str) -> list[Figure]:
    stand.pretouch()
    made = stand.material.nar(nar_hits.SIZE)
    get(daemon.port, f"/{made.digest}.narinfo")
    get(daemon.port, made.path)
    name = made.path.rpartition("/")[2]
    wait_until(lambda: any(path.name == name for path in daemon.stored_nars()), name, daemon=daemon)
    figures = []
    for connections in CONNECTIONS:
        run = partial(
            nar_hits.pull,
            path=made.path,
            connections=connections,
            seconds=min(stand.seconds, 2),
            authority=authority,
        )
        contenders = {
            ANCHOR: partial(run, nginx.ports[1], nginx.pid),
            OURS: partial(run, port, daemon.pid),
        }
        series = alternate(contenders, rounds=stand.rounds, noise=stand.noise, steady="rate")
        figures += [
            Figure(
                point=f"NAR hit over TLS, {connections} connection{'s' * (connections > 1)}",
                quantity=label,
                anchor=series.spread(ANCHOR, quantity),
                ours=series.spread(OURS, quantity),
                ratio=series.ratio(quantity),
                digits=digits,
            )
            for quantity, label, digits in (
                ("rate", "MiB/s", ",.0f"),
                ("cpu", "CPU, s/GiB", ".3f"),
            )
        ]
    return figures
