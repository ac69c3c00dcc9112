"""The world of a chaos run: what there is to fetch, and the origins that have it."""

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
"""Objects that nobody can have while it storms."""
DIFFERENT = 0.15
"""Share of the compressed objects that two kinds of origins have in two files."""
LARGEST = (1_000_000, 6_000_000)
SAME_COMPRESSION = 0.7
"""Share of the swapper's narinfos that name a file of the same compression, where there is one."""
PRIVATE_ALONE, PRIVATE_TOO = 0.05, 0.15
"""Shares of the objects that the private origin alone has, and that it has as well."""
RECOVERY_S = 6.0
"""How long the daemons may take to notice that a server behind them is back."""

JUST_BEFORE_S = 15.0
"""A transfer that ended so long before a kill may have been lost with it."""

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
    """Origins on loopback, what they hold, and the weather over them.

    :param count: how many objects there are.
    :param has_private: whether the private origin is there.
    :ivar may_be_absent: whether a narinfo may be 404 while nobody can be asked for it.
    :ivar whole: when the NAR behind a URL went to a client whole, since it was last in danger.
    :ivar behind: the bytes first seen behind a URL, and when.
    :ivar shown: URLs that narinfos have shown, of each object.
    :ivar troubles: beginning and end of each time at which a server behind the daemons was away.
    :ivar asked: when each URL was first asked for under which a file may have been fetched, by its
        hash.
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
        # The time of day of each answer with the whole instead of a rest.
        self.refused: list[tuple[str, float]] = []
        # URLs that a narinfo has shown with a FileHash or FileSize of no file of its object.
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
                relays.clear()  # only the sour ones have it: here nothing works but the truth
                dialect = chance.choice([dialect, Dialect.BARE])  # of unknown size: in chunks
        if dialect is Dialect.ENCODED:
            compression = "none"  # a compressed file under a compressed wire chokes Nix itself
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
        """Make an object whose only file is wrong at its end, in all of the storm.

        Its size is told by nobody, so that only the way in which an answer ends tells a client.
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
        """Put everything onto the origins and find ports for them; they do not listen yet."""
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
        """Have the swapper say of each object that another one's file is its own."""
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
        """Whether a narinfo's signatures have one of a key that the replica trusts."""
        keys = [self.cache.key, self.private_key] if trusts_private else [self.cache.key]
        return any(key.sign(thing.path.fingerprint) in sigs for key in keys)

    def named(self, url: str) -> tuple[Thing, list[bytes]] | None:
        """Return the object that a URL names, if any, and the bytes that may lie there."""
        return self._named.get(name_of(url))

    def remembered(self, thing: Thing, chance: Random) -> str:
        """A URL that is known without a narinfo, conventional or shown before; else empty."""
        conventional = [path.url for path in thing.conventional]
        shown = sorted(self.shown.get(thing.path.digest, ()))
        if not conventional or (shown and chance.random() < 0.3):
            return chance.choice(shown) if shown else ""
        return chance.choice(conventional)

    def ask_for(self, url: str, files: list[bytes]) -> None:
        """Note that these files may be fetched for the sake of a URL."""
        for file in files:
            asked = self.asked.setdefault(hashlib.sha256(file).hexdigest(), {})
            asked.setdefault(url, time.monotonic())

    def lose(self) -> None:
        """Forget the last moments, which may be lost: a daemon is killed just now.

        Facts that its last answers show when they are read may be lost, too.
        """
        since = time.monotonic() - JUST_BEFORE_S
        self.lives += 1
        self.whole.clear()
        self.behind = {url: seen for url, seen in self.behind.items() if seen[1] < since}

    def start(self) -> None:
        """Start the origins; all of them are well until the storm begins."""
        for origin in self.origins:
            origin.start()

    def stop(self) -> None:
        """Stop the origins."""
        for origin in self.origins:
            origin.stop()

    @property
    def upstreams(self) -> list[UpstreamCache]:
        """As the daemon is told of them: the sour ones come first."""
        return self.upstreams_of(ANYWHERE | {SWAPPER})

    def upstreams_of(self, numbers: frozenset[int]) -> list[UpstreamCache]:
        """Some of the origins, with the key to trust for each."""
        found = []
        for number in sorted(numbers):
            priority = 40 if number in range(SOURS, SWAPPER) else 10
            key = self.private_key if number == PRIVATE else self.cache.key
            url = f"{self.origins[number].url}?priority={priority}"
            found.append(UpstreamCache(url, key.public))
        return found

    def is_troubled(self, begins: float, ends: float) -> bool:
        """Whether a server behind the daemons was away, or may have been taken for it."""
        return any(start <= ends and begins < stop + RECOVERY_S for start, stop in self.troubles)

    def trouble_begins(self) -> None:
        """A server is away from now on: what was just done may be lost, and leases with it."""
        self.troubles.append((time.monotonic(), float("inf")))
        self.lose()

    def trouble_ends(self) -> None:
        """It is there again."""
        self.troubles[-1] = (self.troubles[-1][0], time.monotonic())
        self.lose()

    def is_served(self, homes: frozenset[int], at: float) -> bool:
        """Whether some of these origins was well and known to be, at a time."""
        return not self.is_troubled(at, at) and any(
            self.weather.is_known_well(number, at) for number in homes
        )

    async def keep_moods(self) -> None:
        """Stop and start those that are to be away; runs until cancelled, then all run."""
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
        """The answers of all origins as healthy servers give them, by the time they were asked.

        Answers of the swapper are left out: it gives all of them for a false narinfo.
        An answer behind smuggled bytes on the same connection is none: the daemon took those for
        the answer.
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
