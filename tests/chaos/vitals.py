"""Memory, descriptors and threads of a daemon's process, and leaks of them."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from ncps.assembly import database_servers, parts, stores
from ncps.database.local import READERS
from ncps.settings.schema.upstream import UpstreamsSettings
from tests.chaos.score import Score
from tests.e2e.daemon import Daemon

NAME_THREADS = 10  # the reactor's own pool, which resolves names
BUCKET_THREADS = 32  # the default of the settings; each has a connection
SETTLE_S = 15.0
ESTABLISHED = "01"


@frozen(kw_only=True)
class Bounds:
    """Limits of a daemon's threads and descriptors; it may begin with less.

    :param links: kinds of connections, by the port of the server at either end.
    :param kinds: numbers of descriptors, by kind.
    """

    threads: int
    kinds: Counter[str]
    links: Mapping[int, str] = {}


ALONE = Bounds(
    threads=1 + parts.THREADS + stores.THREADS + stores.READERS + READERS + 1 + NAME_THREADS,
    kinds=Counter({"database": 3 * (1 + READERS + 1) + 1}),  # file, log and index, and the lock
)


def among(database: int, s3: int, redis: int, *replicas: int) -> Bounds:
    """Return the limits of one of several replicas; they and their servers listen on these ports.

    Connections between replicas stay open for reuse; when the others have ended, there are none.
    """
    usual = UpstreamsSettings()
    between = usual.max_connections + usual.max_queries
    return Bounds(
        threads=1 + parts.THREADS + BUCKET_THREADS + database_servers.CONNECTIONS + NAME_THREADS,
        kinds=Counter(
            {
                "database": 2
                * database_servers.CONNECTIONS,  # each has a second descriptor, to cut it
                "S3": BUCKET_THREADS,
                "Redis": 2,
                "replica": 2 * between * (len(replicas) - 1),
            }
        ),
        links={database: "database", s3: "S3", redis: "Redis"} | dict.fromkeys(replicas, "replica"),
    )


@frozen
class Vitals:
    """Threads and descriptors of a process.

    :param descriptors: by kind: `socket`, `database`, `store` (NARs and unfinished ones), `other`,
        and the kinds of connections in the bounds.
    :param strange: connections that are not in the bounds: ports, and the state in hexadecimal.
    """

    descriptors: Counter[str]
    threads: int
    peak_kib: int
    strange: list[str]

    @classmethod
    def of(cls, daemon: Daemon, bounds: Bounds = ALONE) -> Vitals:
        """Read them from /proc."""
        proc = Path(f"/proc/{daemon.pid}")
        peak = re.search(r"VmHWM:\s+(\d+)", (proc / "status").read_text())
        links = _links(proc)
        kinds: Counter[str] = Counter()
        strange: list[str] = []
        for link in (proc / "fd").iterdir():
            with suppress(FileNotFoundError):
                target = str(link.readlink())
                far, near, state = links.get(target, (0, 0, ""))
                # Connections that a client has closed are not those that replicas keep open for
                # each other.
                kind = bounds.links.get(far)
                if kind is None and state == ESTABLISHED:
                    kind = bounds.links.get(near)
                kinds[kind or _kind(target, daemon)] += 1
                if kind is None and far:
                    strange.append(f"{near} to {far}, {state}")
        threads = len(list((proc / "task").iterdir()))
        return cls(kinds, threads, int(peak[1]) if peak else 0, strange)

    def exceeds(self, before: Vitals, bounds: Bounds) -> dict[str, int]:
        """Return numbers beyond both the earlier ones and the limits, by kind."""
        beyond = dict(self.descriptors - (before.descriptors | bounds.kinds))
        if self.threads > bounds.threads:
            beyond["threads"] = self.threads - bounds.threads
        return beyond


def _links(proc: Path) -> dict[str, tuple[int, int, str]]:
    """Return remote port, local port and state of TCP connections by the link of a descriptor."""
    found = {}
    for line in (proc / "net" / "tcp").read_text().splitlines()[1:]:
        fields = line.split()
        near, far = (int(field.rpartition(":")[2], 16) for field in fields[1:3])
        found[f"socket:[{fields[9]}]"] = far, near, fields[3]
    return found


def _kind(target: str, daemon: Daemon) -> str:
    if target.startswith("socket:"):
        return "socket"
    if "/catalog.sqlite" in target:
        return "database"
    is_unfinished = target.startswith(str(daemon.directory / "tmp"))
    return "store" if is_unfinished or target.startswith(f"{daemon.storage}/store") else "other"


def unfinished(daemon: Daemon) -> list[Path]:
    """Return the unfinished files of a daemon."""
    places = (daemon.directory / "tmp", daemon.storage / "store" / "tmp")
    return [path for place in places if place.is_dir() for path in place.iterdir()]


def settle(
    daemon: Daemon,
    baseline: Vitals,
    score: Score,
    tell: Callable[[str], object],
    bounds: Bounds = ALONE,
) -> None:
    """Wait until a daemon without clients and upstreams has no more than at its beginning."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        now = Vitals.of(daemon, bounds)
        beyond, left = now.exceeds(baseline, bounds), unfinished(daemon)
        if (not beyond and not left) or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    tell(f"at first {baseline}, at the end {now}")
    score.blame("leaked threads", str(now), beyond.pop("threads", 0))
    score.blame("leaked descriptors", str(beyond), sum(beyond.values()))
    score.blame("leaked spools", str(left), len(left))
    score.most("peak memory of the last life, MiB", now.peak_kib // 1024)
