"""The world of a chaos run: what there is to fetch, and the origins that have it."""

from __future__ import annotations

import asyncio
import hashlib
from functools import partial
from random import Random

from attrs import frozen

from tests.chaos.weather import ORIGINS, SOURS, Mood, Weather, is_clean
from tests.e2e.daemon import UpstreamCache
from tests.system.caches import Dialect, StorePath, SyntheticCache, recompressed, to_base32
from tests.system.faults import Encoded, Trailing
from tests.system.origin import Origin, Visit

COMPRESSIONS = ("none", "xz", "zstd", "zstd", "bzip2")
ODD = tuple(dialect for dialect in Dialect if dialect is not Dialect.PLAIN)
SIZES = ((0.40, 500, 20_000), (0.40, 20_000, 200_000), (0.18, 200_000, 1_000_000))
DOOMED = 3
"""Objects that nobody can have while it storms."""
DIFFERENT = 0.15
"""Share of the compressed objects that two kinds of origins have in two files."""
LARGEST = (1_000_000, 6_000_000)


@frozen
class Thing:
    """An object of the world.

    :param homes: the origins that have it.
    :param other: the same NAR in another file, which `strangers` have instead.
    :param facts: what every narinfo of it must say, by field, those of the file aside.
    """

    path: StorePath
    homes: frozenset[int]
    facts: dict[str, str]
    other: StorePath | None = None
    strangers: frozenset[int] = frozenset()

    @property
    def files(self) -> list[bytes]:
        """The bytes that may lie behind a URL of it."""
        return [path.file for path in (self.path, self.other) if path is not None]

    def homes_of(self, beginning: bytes) -> frozenset[int]:
        """Who has the file that begins like this: the only ones who can go on with it."""
        is_this = self.file.startswith(beginning)
        if self.other is None or (is_this and self.other.file.startswith(beginning)):
            return self.homes
        return self.homes - self.strangers if is_this else self.strangers

    def is_told_truly(self, file_hash: str | None, file_size: str | None) -> bool:
        """Whether FileHash and FileSize of a narinfo are those of a file of it, or left out."""
        return any(
            file_hash in {None, f"sha256:{to_base32(hashlib.sha256(file).digest())}"}
            and file_size in {None, str(len(file))}
            for file in self.files
        )

    @property
    def file(self) -> bytes:
        """The bytes behind its URL."""
        return self.path.file


def _size(chance: Random) -> int:
    at = chance.random()
    for share, low, high in SIZES:
        if at < share:
            return chance.randint(low, high)
        at -= share
    return chance.randint(*LARGEST)


class World:
    """Origins on loopback, what they hold, and the weather over them.

    :param count: how many objects there are.
    """

    def __init__(self, seed: int, *, count: int, turn_s: float) -> None:
        self.cache = SyntheticCache(seed)
        self.origins = [Origin() for _ in range(ORIGINS)]
        self._sizes: dict[str, int] = {}
        self.weather = Weather(seed, turn_s=turn_s, sizes=self._sizes)
        chance = Random(f"{seed}/world")
        self.things = [self._make(chance) for _ in range(count)]
        self.things += [self._make_doomed(chance) for _ in range(DOOMED)]
        self.by_digest = {thing.path.digest: thing for thing in self.things}
        paths = [
            (thing, path)
            for thing in self.things
            for path in (thing.path, thing.other)
            if path is not None
        ]
        self.by_sha256 = {hashlib.sha256(path.file).hexdigest(): thing for thing, path in paths}
        self.by_target = {
            path.nar_target: hashlib.sha256(path.file).hexdigest() for _, path in paths
        }
        self.lives = 0
        self.whole: dict[str, float] = {}
        # The time of day of each answer with the whole instead of a rest.
        self.refused: list[tuple[str, float]] = []
        self.behind: dict[str, tuple[bytes, float]] = {}
        self.absent = [to_base32(chance.randbytes(20)) for _ in range(max(3, count // 20))]

    def _make(self, chance: Random) -> Thing:
        dialect = chance.choice(ODD) if chance.random() < 0.2 else Dialect.PLAIN
        compression = chance.choice(COMPRESSIONS)
        relays = list(range(SOURS, ORIGINS))
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
        nar_hash = hashlib.sha256(path.nar)
        facts = {
            "StorePath": path.path,
            "NarHash": f"sha256:{to_base32(nar_hash.digest())}",
            "NarSize": str(len(path.nar)),
            "References": "",
        }
        return Thing(path, homes, facts, other, strangers & homes)

    def _make_doomed(self, chance: Random) -> Thing:
        """Make an object whose only file is wrong at its end, in all of the storm.

        Its size is told by nobody, so that only the way in which an answer ends tells a client.
        """
        size = chance.randint(200_000, 400_000)
        path = self.cache.add(size, compression="zstd", dialect=Dialect.BARE)
        self._sizes[path.nar_target] = len(path.file)
        self.weather.doomed.add(path.nar_target)
        nar_hash = f"sha256:{to_base32(hashlib.sha256(path.nar).digest())}"
        facts = {
            "StorePath": path.path,
            "NarHash": nar_hash,
            "NarSize": str(len(path.nar)),
            "References": "",
        }
        return Thing(path, frozenset(range(SOURS)), facts)

    def mount(self) -> None:
        """Put everything onto the origins and find ports for them; they do not listen yet."""
        for number, origin in enumerate(self.origins):
            origin.plan = partial(self.weather.plan, number)
            origin.serve("/nix-cache-info", self.cache.info())
            for thing in self.things:
                if number in thing.homes:
                    is_strange = thing.other is not None and number in thing.strangers
                    path = thing.other if thing.other is not None and is_strange else thing.path
                    origin.serve(f"/{path.digest}.narinfo", path.narinfo())
                    wire = [Encoded("zstd")] if path.dialect is Dialect.ENCODED else []
                    origin.serve(path.nar_target, path.file, *wire)
            origin.start()
            origin.stop()

    def lose(self, since: float) -> None:
        """What was seen since then may be lost: the daemon is killed just now.

        So may what its last answers will have shown when they are read.
        """
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
        return [
            UpstreamCache(f"{origin.url}?priority={10 if number < SOURS else 40}", key)
            for number, origin in enumerate(self.origins)
            for key in [self.cache.key.public]
        ]

    def is_served(self, homes: frozenset[int], at: float) -> bool:
        """Whether some of these origins was well and known to be, at a time."""
        return any(self.weather.is_known_well(number, at) for number in homes)

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

        An answer behind smuggled bytes on the same connection is none: the daemon took those for
        the answer.
        """
        found: list[Visit] = []
        for origin in self.origins:
            smuggled: set[int] = set()
            for visit in list(origin.log):
                if is_clean(visit.faults) and visit.peer not in smuggled:
                    found.append(visit)
                if any(isinstance(fault, Trailing) for fault in visit.faults):
                    smuggled.add(visit.peer)
        return sorted(found, key=lambda visit: visit.began)
