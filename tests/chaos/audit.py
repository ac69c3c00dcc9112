"""The checks at the end of a storm: the store, the database, the log and the downloads."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from datetime import datetime
from itertools import pairwise

from attrs import frozen

from ncps.cache.nar.download import SENT
from ncps.web.misled import TTL_S
from tests.chaos.score import Score
from tests.chaos.world import JUST_BEFORE_S, RECOVERY_S, World
from tests.e2e.daemon import Daemon
from tests.system.stage import ALARMS

ROWS = (
    "SELECT i.hash, n.name, n.extension, n.stored_size FROM nar_files n"
    " LEFT JOIN narinfos i ON i.nar_file_id = n.id WHERE n.stored_at IS NOT NULL"
)


@frozen
class Stored:
    """The files of a store, and the catalog's rows about them.

    :param files: size and hash of each NAR by its file name.
    :param rows: hash part of a store path or None, name, extension and size.
    :param set_aside: number of files in the quarantine.
    """

    files: dict[str, tuple[int, str]]
    rows: list[tuple[str | None, str, str, int]]
    set_aside: int


def local(daemon: Daemon) -> Stored:
    """Read a storage directory and its SQLite file."""
    files = {path.name: path.read_bytes() for path in daemon.stored_nars()}
    with closing(sqlite3.connect(daemon.directory / "catalog.sqlite")) as database:
        rows = database.execute(ROWS).fetchall()
    quarantine = daemon.storage / "store" / "quarantine"
    return Stored(hashed(files), rows, len(list(quarantine.iterdir())))


def hashed(files: dict[str, bytes]) -> dict[str, tuple[int, str]]:
    """Return the size and hash of files."""
    return {
        name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in files.items()
    }


def examine_store(stored: Stored, world: World, planted: dict[str, set[str]], score: Score) -> None:
    """Compare every stored NAR with the right bytes, with its name and with its row.

    :param planted: hashes of planted bytes, by name. Without a row they may stay for the daily
        sweep, which removes files that are older than a day.
    """
    recorded = {f"{name}.nar" + (f".{end}" if end else "") for _, name, end, _ in stored.rows}
    files = {
        name: facts
        for name, facts in stored.files.items()
        if name in recorded or facts[1] not in planted.get(name, ())
    }
    score.add("planted files left for the sweep", len(stored.files) - len(files))
    score.add("stored NARs", len(files))
    score.add("set aside", stored.set_aside)
    for name, (size, sha256) in files.items():
        named = world.named(f"nar/{name}")
        true = [] if named is None else [hashlib.sha256(file).hexdigest() for file in named[1]]
        if sha256 not in true:
            score.blame("wrong bytes stored", f"{name} ({size} bytes)")
    known = set()
    for digest, name, extension, size in stored.rows:
        file = f"{name}.nar" + (f".{extension}" if extension else "")
        known.add(file)
        if file not in files:
            score.blame("rows without bytes", file)
        elif files[file][0] != size:
            score.blame("rows without bytes", f"{file} has {files[file][0]} of {size} bytes")
        elif (
            digest is not None
            and world.by_sha256.get(files[file][1]) is not (world.by_digest[digest])
        ):
            score.blame("wrong bytes stored", f"{file} is not the NAR of {digest}")
    for file in sorted(set(files) - known):
        score.blame("bytes without row", file)
    score.add("rows", len(known))


def examine_log(daemon: Daemon, score: Score) -> None:
    """Count unexpected errors in the log."""
    log = daemon.log
    for mark in ALARMS:
        at = log.find(mark)
        if at >= 0:
            score.blame("tracebacks", log[max(0, at - 300) : at + 1500], log.count(mark))


def examine_refusals(world: World, log: str, score: Score) -> None:
    """Check that a client is refused a 206 only after one was cut off with wrong bytes.

    All clients here have one address, so it may have been another client.
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
    world: World,
    kills: list[float],
    damages: Mapping[str, list[tuple[float, str]]],
    log: str,
    score: Score,
) -> None:
    """Count complete transfers of each object from healthy origins, and those without a reason.

    Each of these reasons explains one more transfer: the stored file was damaged; the daemon was
    killed soon after the transfer before, and may have lost it; an upstream was so late with its
    head that ncps asked another one, and the log says so; an origin sent a false narinfo. A server
    that was away explains each transfer whose bytes could not be stored, recorded or seen. Each
    further URL by which a client asked for the file explains one, because ncps stores it twice.

    :param damages: time of each damage to stored bytes, and the name of the file, by the hash of
        the right bytes.
    """
    begun: dict[str, list[float]] = {}
    for visit in world.clean_visits():
        sha256 = world.by_target.get(visit.target)
        if sha256 is None or visit.method != "GET":
            continue
        # A 200 to a Range request continues a transfer from a server without ranges.
        is_begun_anew = visit.status == 200 and visit.request.range is None
        if is_begun_anew and visit.outcome == "done":
            begun.setdefault(sha256, []).append(visit.began)
    targets = [v.target for o in world.origins for v in o.log if v.method == "GET"]
    score.add("upstream NAR requests", sum(map(world.by_target.__contains__, targets)))
    score.add("objects fetched", len(begun))
    score.add("whole healthy transfers", sum(map(len, begun.values())))
    hedged, lies = _hedged(world, log), world.weather.lies.copy()
    names = {sha256: sorted(urls.values())[1:] for sha256, urls in world.asked.items()}
    score.add("second upstreams asked because one was late", sum(hedged.values()))
    for sha256, times in begun.items():
        damaged = [damage for damage in damages.get(sha256, ()) if damage[0] > times[0]]
        for before, after in pairwise(times):
            is_explained = (
                explains(damaged, after)
                or any(before - 1 < at < before + JUST_BEFORE_S for at in kills)
                or any(_costs(trouble, before, after) for trouble in world.troubles)
            )
            narinfo = f"/{world.by_sha256[sha256].path.digest}.narinfo"
            if not is_explained and hedged[sha256]:
                hedged[sha256] -= 1
            elif not is_explained and any(at < after for at in names.get(sha256, ())):
                names[sha256].pop(0)
                score.add("transfers explained by another name")
            elif not is_explained and lies[narinfo]:
                lies[narinfo] -= 1
                score.add("transfers explained by false narinfos")
            elif not is_explained:
                target = next(t for t, named in world.by_target.items() if named == sha256)
                score.blame("excess downloads", f"{target} after {after - before:.1f} s")


def explains(damages: list[tuple[float, str]], after: float) -> bool:
    """Return whether a damage explains a transfer that began at a time, and count it as spent.

    Bytes that are stored under two names may be damaged under both, and are fetched again for each
    when a client asks for it. Further damages to one file explain no further transfer.

    :param damages: time and name of each damage that has explained no transfer yet.
    """
    name = next((name for at, name in damages if at < after), None)
    damages[:] = [(at, other) for at, other in damages if other != name or at >= after]
    return name is not None


def _costs(trouble: tuple[float, float], before: float, after: float) -> bool:
    """Return whether a server's absence explains that a file was fetched again.

    Either the first bytes could not be stored or recorded, or the replica could not see them or
    their download the second time.
    """
    begins, ends = trouble
    is_lost = begins < before + JUST_BEFORE_S and before - 1 < ends + RECOVERY_S
    return is_lost or begins < after < ends + RECOVERY_S


def _hedged(world: World, log: str) -> Counter[str]:
    """Count for each file the requests to a second upstream because the first was late."""
    lines = [json.loads(line) for line in log.splitlines() if "is asked, too" in line]
    targets = [world.by_target.get(f"/{line['url']}") for line in lines]
    return Counter(sha256 for sha256 in targets if sha256 is not None)
