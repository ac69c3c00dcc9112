"""The world of a storm: the objects, and the origins that have them."""

from __future__ import annotations

import asyncio
import hashlib
import time
from functools import partial
from random import Random

from tests.chaos.things import Thing, facts_of, name_of, opaque, spelled
from tests.chaos.weather import ORIGINS, PRIVATE, RELAYS, SOURS, SWAPPER, Mood, Weather, is_clean
from tests.e2e.daemon import UpstreamCache
from tests.system.caches import (
    Dialect,
    StorePath,
    SyntheticCache,
    TestKey,
    forged,
    recompressed,
    to_base32,
)
from tests.system.faults import Encoded, Trailing
from tests.system.origin import Origin, Visit
from tests.waiting import free_port

COMPRESSIONS = ("none", "xz", "zstd", "zstd", "bzip2")
ODD = tuple(dialect for dialect in Dialect if dialect is not Dialect.PLAIN)
SIZES = ((0.40, 500, 20_000), (0.40, 20_000, 200_000), (0.18, 200_000, 1_000_000))
DOOMED = 3
"""Number of objects that no client can get during the storm."""
DIFFERENT = 0.15
"""Share of the compressed objects of which some origins have another file."""
LARGEST = (1_000_000, 6_000_000)
SAME_COMPRESSION = 0.7
"""Share of the swapper's narinfos that name a file in the same compression, if there is one."""
PRIVATE_ALONE, PRIVATE_TOO = 0.05, 0.15
"""Shares of the objects that only the private origin has, and that it has besides others."""
RECOVERY_S = 6.0
"""Seconds in which the daemons may not notice that a server behind them is back."""

JUST_BEFORE_S = 15.0
"""Seconds before a kill: a transfer that ended in that time may be lost."""

ANYWHERE = frozenset(range(SOURS + RELAYS))


def _size(chance: Random) -> int:
    at = chance.random()
    for share, low, high in SIZES:
        if at < share:
            return chance.randint(low, high)
        at -= share
    return chance.randint(*LARGEST)


def _serve(origin: Origin, path: StorePath) -> None:
    origin.serve(f"/{path.digest}.narinfo", path.narinfo())
    wire = [Encoded("zstd")] if path.dialect is Dialect.ENCODED else []
    origin.serve(path.nar_target, path.file, *wire)


class World:
    """Origins on loopback, their objects, and their weather.

    :param count: number of objects.
    :param has_private: whether the private origin is there.
    :ivar may_be_absent: whether a narinfo may be 404 while no origin can be asked for it.
    :ivar whole: the time when a client got the complete NAR behind a URL; removed by kills.
    :ivar behind: the first bytes behind a URL, and their time.
    :ivar shown: the URLs in narinfos of each object.
    :ivar troubles: begin and end of each time in which a server behind the daemons was away.
    :ivar asked: by the hash of a file, the times of the first request for each URL that may have
        fetched it.
    """

    def __init__(self, seed: int, *, count: int, turn_s: float, has_private: bool = False) -> None:
        self.cache = SyntheticCache(seed)
        self.private_key = TestKey.of("private.test-1")
        self._has_private = has_private
        self._seed = seed
        self.origins = [Origin(port=free_port()) for _ in range(ORIGINS)]
        self._sizes: dict[str, int] = {}
        self.weather = Weather(seed, turn_s=turn_s, sizes=self._sizes)
        chance = Random(f"{seed}/world")
        self.things = [self._make(chance) for _ in range(count)]
        self.things += [self._make_doomed(chance) for _ in range(DOOMED)]
        if has_private:
            self.things += [self._make_private(chance) for _ in range(int(count * PRIVATE_ALONE))]
        self.by_digest = {thing.path.digest: thing for thing in self.things}
        paths = [(thing, path) for thing in self.things for path in thing.paths]
        self._named = {
            name: (thing, thing.files) for thing in self.things for name in opaque(thing.path.nar)
        }
        self._named |= {
            name: (thing, [path.file]) for thing, path in paths for name in spelled(path.file)
        }
        self.by_sha256 = {hashlib.sha256(path.file).hexdigest(): thing for thing, path in paths}
        self.by_target = {
            path.nar_target: hashlib.sha256(path.file).hexdigest() for _, path in paths
        }
        self.may_be_absent = True
        self.lives = 0
        self.troubles: list[tuple[float, float]] = []
        self.whole: dict[str, float] = {}
        # The time of day of each answer with the complete file instead of a rest.
        self.refused: list[tuple[str, float]] = []
        # URLs of narinfos whose FileHash or FileSize belongs to no file of their object.
        self.untrue: set[str] = set()
        self.behind: dict[str, tuple[bytes, float]] = {}
        self.shown: dict[str, set[str]] = {}
        self.asked: dict[str, dict[str, float]] = {}
        self.absent = [to_base32(chance.randbytes(20)) for _ in range(max(3, count // 20))]

    def _make(self, chance: Random) -> Thing:
        dialect = chance.choice(ODD) if chance.random() < 0.2 else Dialect.PLAIN
        compression = chance.choice(COMPRESSIONS)
        relays = list(range(SOURS, SOURS + RELAYS))
        match chance.randrange(12):
            case 0:
                relays.remove(chance.choice(relays))
            case 1:
                relays.clear()  # only the sour ones have it
                dialect = chance.choice([dialect, Dialect.BARE])  # of unknown size: in chunks
        if dialect is Dialect.ENCODED:
            compression = "none"  # Nix itself cannot read a compressed file with a Content-Encoding
        size = _size(chance)
        if compression in {"xz", "bzip2"}:
            size //= 5  # they are slow to make
        path = self.cache.add(size, compression=compression, dialect=dialect)
        other, strangers = None, frozenset[int]()
        can_differ = dialect is Dialect.PLAIN and compression != "none" and len(relays) > 1
        if can_differ and chance.random() < DIFFERENT:
            other = recompressed(path)
            strangers = frozenset([chance.choice(relays), *chance.sample(range(SOURS), 1)])
            self._sizes[other.nar_target] = len(other.file)
        self._sizes[f"/{path.digest}.narinfo"] = len(path.narinfo())
        self._sizes[path.nar_target] = len(path.file)
        homes = frozenset([*range(SOURS), *relays])
        return Thing(path, homes, facts_of(path), other, strangers & homes)

    def _make_doomed(self, chance: Random) -> Thing:
        """Make an object whose last bytes are wrong during the whole storm.

        No answer has its size, so that a client notices only if the connection is cut.
        """
        size = chance.randint(200_000, 400_000)
        path = self.cache.add(size, compression="zstd", dialect=Dialect.BARE)
        self._sizes[path.nar_target] = len(path.file)
        self.weather.doomed.add(path.nar_target)
        return Thing(path, frozenset(range(SOURS)), facts_of(path))

    def _make_private(self, chance: Random) -> Thing:
        compression = chance.choice(COMPRESSIONS)
        made = self.cache.add(chance.randint(500, 50_000), compression=compression)
        path = forged(made, key=self.private_key)
        self._sizes[f"/{path.digest}.narinfo"] = len(path.narinfo())
        self._sizes[path.nar_target] = len(path.file)
        return Thing(path, frozenset([PRIVATE]), facts_of(path), is_private=True)

    def mount(self) -> None:
        """Put all objects onto the origins and find ports for them; they do not listen yet."""
        for number, origin in enumerate(self.origins):
            origin.plan = partial(self.weather.plan, number)
            origin.serve("/nix-cache-info", self.cache.info())
            for thing in self.things:
                if number in thing.homes:
                    is_strange = thing.other is not None and number in thing.strangers
                    path = thing.other if thing.other is not None and is_strange else thing.path
                    _serve(origin, path)
        self._mount_swaps()
        if self._has_private:
            chance = Random(f"{self._seed}/private")
            for thing in self.things:
                if not thing.is_private and chance.random() < PRIVATE_TOO:
                    _serve(self.origins[PRIVATE], forged(thing.path, key=self.private_key))
        for origin in self.origins:
            origin.start()
            origin.stop()

    def _mount_swaps(self) -> None:
        """Give the swapper a narinfo of each object that names the file of another one."""
        chance, origin = Random(f"{self._seed}/swaps"), self.origins[SWAPPER]
        files = [t.path for t in self.things if t.path.dialect is Dialect.PLAIN]
        for thing in self.things:
            path = thing.path
            others = [other for other in files if other is not path]
            alike = [other for other in others if other.compression == path.compression]
            other = chance.choice(alike if alike and chance.random() < SAME_COMPRESSION else others)
            said = dict(other.fields())
            names = ("URL", "FileHash", "FileSize")
            origin.serve(
                f"/{path.digest}.narinfo", path.narinfo(**{name: said[name] for name in names})
            )
            origin.serve(other.nar_target, other.file)
            self.weather.swaps[f"/{path.digest}.narinfo"] = f"/{other.digest}.narinfo"

    def is_vouched_for(self, thing: Thing, sigs: list[str], *, trusts_private: bool) -> bool:
        """Return whether a narinfo has a signature by a key that the replica trusts."""
        keys = [self.cache.key, self.private_key] if trusts_private else [self.cache.key]
        return any(key.sign(thing.path.fingerprint) in sigs for key in keys)

    def named(self, url: str) -> tuple[Thing, list[bytes]] | None:
        """Return the object that a URL names, if any, and the bytes that may be there."""
        return self._named.get(name_of(url))

    def remembered(self, thing: Thing, chance: Random) -> str:
        """Return a URL that a client may know, conventional or from a narinfo; else empty."""
        conventional = [path.url for path in thing.conventional]
        shown = sorted(self.shown.get(thing.path.digest, ()))
        if not conventional or (shown and chance.random() < 0.3):
            return chance.choice(shown) if shown else ""
        return chance.choice(conventional)

    def ask_for(self, url: str, files: list[bytes]) -> None:
        """Note that a request for a URL may fetch these files."""
        for file in files:
            asked = self.asked.setdefault(hashlib.sha256(file).hexdigest(), {})
            asked.setdefault(url, time.monotonic())

    def lose(self) -> None:
        """Forget the last observations: a daemon is killed now and may lose them.

        It may also lose the facts in its last answers.
        """
        since = time.monotonic() - JUST_BEFORE_S
        self.lives += 1
        self.whole.clear()
        self.behind = {url: seen for url, seen in self.behind.items() if seen[1] < since}

    def start(self) -> None:
        """Start the origins; all of them are healthy until the storm begins."""
        for origin in self.origins:
            origin.start()

    def stop(self) -> None:
        """Stop the origins."""
        for origin in self.origins:
            origin.stop()

    @property
    def upstreams(self) -> list[UpstreamCache]:
        """Return the upstreams of the daemon: the sour ones come first."""
        return self.upstreams_of(ANYWHERE | {SWAPPER})

    def upstreams_of(self, numbers: frozenset[int]) -> list[UpstreamCache]:
        """Return some of the origins, with the key to trust for each."""
        found = []
        for number in sorted(numbers):
            priority = 40 if number in range(SOURS, SWAPPER) else 10
            key = self.private_key if number == PRIVATE else self.cache.key
            url = f"{self.origins[number].url}?priority={priority}"
            found.append(UpstreamCache(url, key.public))
        return found

    def is_troubled(self, begins: float, ends: float) -> bool:
        """Return whether a server behind the daemons was away, or may have seemed so."""
        return any(start <= ends and begins < stop + RECOVERY_S for start, stop in self.troubles)

    def trouble_begins(self) -> None:
        """Note that a server is away from now on: the last work and leases may be lost."""
        self.troubles.append((time.monotonic(), float("inf")))
        self.lose()

    def trouble_ends(self) -> None:
        """Note that the server is back."""
        self.troubles[-1] = (self.troubles[-1][0], time.monotonic())
        self.lose()

    def is_served(self, homes: frozenset[int], at: float) -> bool:
        """Return whether one of these origins was known to be healthy at a time."""
        return not self.is_troubled(at, at) and any(
            self.weather.is_known_well(number, at) for number in homes
        )

    async def keep_moods(self) -> None:
        """Stop and start origins as the weather says, until cancelled; then start all."""
        away: set[int] = set()
        try:
            while True:
                for number, origin in enumerate(self.origins):
                    is_away = self.weather.mood(number) is Mood.AWAY
                    if is_away and number not in away:
                        away.add(number)
                        await asyncio.to_thread(origin.stop)
                    elif not is_away and number in away:
                        await asyncio.to_thread(origin.start)
                        away.discard(number)
                await asyncio.sleep(0.05)
        finally:
            for number in away:
                self.origins[number].start()

    def clean_visits(self) -> list[Visit]:
        """Return the answers that healthy servers could have given, in the order of the requests.

        Answers of the swapper are left out, because all of them follow a false narinfo. So is an
        answer after smuggled bytes on the same connection: the daemon read those instead.
        """
        found: list[Visit] = []
        for origin in self.origins[:SWAPPER] + self.origins[PRIVATE:]:
            smuggled: set[int] = set()
            for visit in list(origin.log):
                if is_clean(visit.faults) and visit.peer not in smuggled:
                    found.append(visit)
                if any(isinstance(fault, Trailing) for fault in visit.faults):
                    smuggled.add(visit.peer)
        return sorted(found, key=lambda visit: visit.began)
