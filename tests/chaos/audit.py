"""The audit of a chaos run: what lies in the store, in the database and in the process."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections import Counter
from contextlib import closing, suppress
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from attrs import frozen

from ncps.assembly.parts import THREADS
from ncps.cache.follow import SENT
from ncps.database.local import READERS
from ncps.web.misled import TTL_S
from tests.chaos.score import Score
from tests.chaos.world import World
from tests.e2e.daemon import Daemon
from tests.system.stage import ALARMS

NAME_THREADS = 10  # the reactor's own pool, which resolves names
THREADS_AT_MOST = 1 + THREADS + READERS + 1 + NAME_THREADS
DATABASE_FILES = 3 * (1 + READERS + 1) + 1
"""File, log and index of each connection, and the lock."""

JUST_BEFORE_S = 15.0
"""A transfer that ended so long before a kill may have been lost with it."""


@frozen
class Vitals:
    """What a process holds.

    :param descriptors: by kind: `socket`, `database`, `store` (NARs and unfinished ones), `other`.
    """

    descriptors: Counter[str]
    threads: int
    peak_kib: int

    @classmethod
    def of(cls, daemon: Daemon) -> Vitals:
        """Look into /proc."""
        proc = Path(f"/proc/{daemon.pid}")
        peak = re.search(r"VmHWM:\s+(\d+)", (proc / "status").read_text())
        kinds: Counter[str] = Counter()
        for link in (proc / "fd").iterdir():
            with suppress(FileNotFoundError):
                kinds[_kind(str(link.readlink()), daemon)] += 1
        return cls(kinds, len(list((proc / "task").iterdir())), int(peak[1]) if peak else 0)

    def exceeds(self, before: Vitals) -> dict[str, int]:
        """What it holds beyond what it held before and may hold, by kind.

        Connections to the database and threads are made as they are needed, up to fixed numbers.
        """
        allowed = before.descriptors | Counter(database=DATABASE_FILES)
        beyond = dict(self.descriptors - allowed)
        if self.threads > THREADS_AT_MOST:
            beyond["threads"] = self.threads - THREADS_AT_MOST
        return beyond


def _kind(target: str, daemon: Daemon) -> str:
    if target.startswith("socket:"):
        return "socket"
    if "/catalog.sqlite" in target:
        return "database"
    is_unfinished = target.startswith(str(daemon.directory / "tmp"))
    return "store" if is_unfinished or target.startswith(f"{daemon.storage}/store") else "other"


def unfinished(daemon: Daemon) -> list[Path]:
    """The unfinished files of a daemon."""
    places = (daemon.directory / "tmp", daemon.storage / "store" / "tmp")
    return [path for place in places if place.is_dir() for path in place.iterdir()]


def examine_store(daemon: Daemon, world: World, score: Score) -> None:
    """Hash every stored NAR and compare it with the truth and with its row."""
    files = {path.name: path for path in daemon.stored_nars()}
    hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    score.add("stored NARs", len(files))
    quarantine = daemon.storage / "store" / "quarantine"
    score.add("set aside", len(list(quarantine.iterdir())))
    for name, sha256 in hashes.items():
        if sha256 not in world.by_sha256:
            score.blame("wrong bytes stored", f"{name} ({files[name].stat().st_size} bytes)")
    with closing(sqlite3.connect(daemon.directory / "catalog.sqlite")) as database:
        rows = database.execute(
            "SELECT i.hash, n.name, n.extension, n.stored_size FROM nar_files n"
            " LEFT JOIN narinfos i ON i.nar_file_id = n.id WHERE n.stored_at IS NOT NULL"
        ).fetchall()
    known = set()
    for digest, name, extension, size in rows:
        file = f"{name}.nar" + (f".{extension}" if extension else "")
        known.add(file)
        path = files.get(file)
        if path is None:
            score.blame("rows without bytes", file)
        elif path.stat().st_size != size:
            score.blame("rows without bytes", f"{file} has {path.stat().st_size} of {size} bytes")
        elif (
            digest is not None
            and world.by_sha256.get(hashes[file]) is not (world.by_digest[digest])
        ):
            score.blame("wrong bytes stored", f"{file} is not the NAR of {digest}")
    for file in sorted(set(files) - known):
        score.blame("bytes without row", file)
    score.add("rows", len(known))


def examine_log(daemon: Daemon, score: Score) -> None:
    """Look for what nobody expected."""
    log = daemon.log
    for mark in ALARMS:
        at = log.find(mark)
        if at >= 0:
            score.blame("tracebacks", log[max(0, at - 300) : at + 1500], log.count(mark))


def examine_refusals(world: World, log: str, score: Score) -> None:
    """A client gets no 206 only where one was cut off with wrong bytes of the file shortly before.

    All clients here have one address, so it may have been another one.
    """
    cuts: dict[str, list[float]] = {}
    for line in log.splitlines():
        if SENT in line:
            event = json.loads(line)
            when = datetime.strptime(event["time"], "%Y-%m-%dT%H:%M:%S.%f%z").timestamp()
            cuts.setdefault(event["path"], []).append(when)
    for url, when in world.refused:
        if not any(-1 <= when - cut <= TTL_S + 1 for cut in cuts.get(f"/{url}", [])):
            score.blame("resume refused", f"{url}: nobody was sent wrong bytes")


def count_downloads(
    world: World, kills: list[float], damages: dict[str, list[float]], log: str, score: Score
) -> None:
    """Count whole transfers of each object from healthy origins, and how many are unexplained.

    After the first, each needs a reason: the stored file was damaged since, or the daemon was
    killed so soon after the transfer before that it may have lost it, or the one upstream was so
    late with its head that the other was asked as well, as the log has it, or a false narinfo of it
    was told, as the weather has it: each may cost one.

    :param damages: when the stored bytes were damaged, by their true hash.
    """
    begun: dict[str, list[float]] = {}
    for visit in world.clean_visits():
        sha256 = world.by_target.get(visit.target)
        if sha256 is None or visit.method != "GET":
            continue
        # A 200 to a Range request goes on with what there was, at a server without ranges.
        is_begun_anew = visit.status == 200 and visit.request.range is None
        if is_begun_anew and visit.outcome == "done":
            begun.setdefault(sha256, []).append(visit.began)
    targets = [v.target for o in world.origins for v in o.log if v.method == "GET"]
    score.add("upstream NAR requests", sum(map(world.by_target.__contains__, targets)))
    score.add("objects fetched", len(begun))
    score.add("whole healthy transfers", sum(map(len, begun.values())))
    hedged, lies = _hedged(world, log), world.weather.lies.copy()
    score.add("second upstreams asked because one was late", sum(hedged.values()))
    for sha256, times in begun.items():
        for before, after in pairwise(times):
            is_explained = any(before < at < after for at in damages.get(sha256, ())) or any(
                before - 1 < at < before + JUST_BEFORE_S for at in kills
            )
            narinfo = f"/{world.by_sha256[sha256].path.digest}.narinfo"
            if not is_explained and hedged[sha256]:
                hedged[sha256] -= 1
            elif not is_explained and lies[narinfo]:
                lies[narinfo] -= 1
                score.add("transfers explained by false narinfos")
            elif not is_explained:
                target = next(t for t, named in world.by_target.items() if named == sha256)
                score.blame("excess downloads", f"{target} after {after - before:.1f} s")


def _hedged(world: World, log: str) -> Counter[str]:
    """How often each file was asked for at a second upstream because the first was late."""
    lines = [json.loads(line) for line in log.splitlines() if "is asked, too" in line]
    targets = [world.by_target.get(f"/{line['url']}") for line in lines]
    return Counter(sha256 for sha256 in targets if sha256 is not None)
