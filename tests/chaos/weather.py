"""The weather: the healthy and the ill times of each origin, and the faults of its answers.

    sour 0, 1     asked first; most of their answers are wrong, all of the time
    swapper       asked first, too; its narinfos have good signatures and name the files of other
                  paths, which it serves or denies
    private       always healthy; only one of three replicas asks it, and trusts its key
    relay 0..2    ill in turn, so that at least one has been healthy for long enough; in the dark
                  spells all three are ill

    relay 0   ill......--------------------------ill......------------
    relay 1   ---------------ill......--------------------------ill...
    relay 2   ----------------------------ill......-------------------

When an origin is healthy again, the daemon may need as long to notice as it was away (its pauses
double); only then does it count as known to be healthy. The seed determines the times of illness
and every fault of every answer. A fault depends on origin, method, target and the number of such
requests so far, not on the order of the clients.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from random import Random

from attrs import frozen

from tests.system import faults
from tests.system.caches import to_base32
from tests.system.faults import Fault, Request

SOURS = 2
RELAYS = 3
SWAPPER = SOURS + RELAYS
PRIVATE = SWAPPER + 1
ORIGINS = PRIVATE + 1
NOTICE_S = 3.0
"""Seconds, beyond the time of an illness, in which the daemon may not notice its end."""

LONGEST_PAUSE_S = 30.0

RATES = {0: 0.85, 1: 0.4}
"""Share of bad answers of the sour origins: ncps soon leaves out the first, not the second."""

LIARS = 0.3
"""Share of their bad narinfos with a good signature and false unsigned fields."""

DENIALS = 0.3
"""Share of the swapper's NARs that it denies, though its narinfos name them."""

Draw = Callable[[Random, int], Fault]


class Mood(Enum):
    """The health of an origin."""

    WELL = "well"
    FAULTY = "faulty"
    SILENT = "silent"
    AWAY = "away"


@frozen
class Spell:
    """A time in which an origin is ill, in seconds since the storm began."""

    start: float
    stop: float
    mood: Mood


CATALOGUE: Mapping[str, Draw] = {
    "cut": lambda r, size: faults.Cut(r.randint(0, size)),
    "reset": lambda r, size: faults.Cut(r.randint(0, size), reset=True),
    "stall": lambda r, size: faults.Stall(r.randint(0, size)),
    "pause": lambda r, size: faults.Stall(r.randint(0, size), r.uniform(0.1, 1.0)),
    "wrong bytes": lambda r, size: faults.WrongBytes(r.randint(0, max(0, size - 9))),
    "short": lambda r, size: faults.Short(r.randint(0, size)),
    "long": lambda r, _: faults.Long(r.randbytes(r.randint(1, 5000))),
    "length too large": lambda r, size: faults.Claim(size + r.randint(1, 5000)),
    "length too small": lambda r, size: faults.Claim(r.randint(0, size)),
    "5xx": lambda r, _: faults.Status(r.choice([500, 502, 503, 504])),
    "429": lambda r, _: faults.Status(429, retry_after=r.choice([None, 1, 2, "soon"])),
    "404": lambda r, _: faults.Status(r.choice([403, 404, 410])),
    "html": lambda _r, _: faults.Html(),
    "redirect loop": lambda r, _: faults.Redirect(
        r.choice(["", "/loop", "?again", "/nix-cache-info"])
    ),
    "trickle": lambda r, size: faults.Trickle(max(2000.0, size / r.uniform(0.5, 3.0))),
    "late": lambda r, _: faults.Delay(r.uniform(0.1, 1.0)),
    "huge headers": lambda r, _: faults.HugeHeaders(r.choice([20, 600]), r.choice([50, 20_000])),
    "silence": lambda _r, _: faults.Silence(),
    "hangup": lambda r, _: faults.Hangup(reset=r.random() < 0.5),
    "garbage": lambda r, _: faults.Raw(r.randbytes(200)),
    "half a head": lambda _r, _: faults.Raw(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "garbage body": lambda _r, _: faults.GarbageBody(),
    "trailing": lambda _r, _: faults.Trailing(),
    "range ignored": lambda r, _: faults.NoRanges(advertised=r.random() < 0.5),
    "range wrong": lambda _r, _: faults.WrongRange(),
    "no length": lambda _r, _: faults.NoLength(),
    "encoded": lambda r, _: faults.Encoded(r.choice(["zstd", "gzip"])),
}
"""All faults of an answer, by name."""


def _false_file(chance: Random, _: int) -> Fault:
    name = to_base32(chance.randbytes(32))
    return faults.FalseFields(name=name, file_hash=name, grown=chance.randint(1, 5000))


LIES: Mapping[str, Draw] = {
    "false URL": lambda r, _: faults.FalseFields(name=to_base32(r.randbytes(32))),
    "false FileHash": lambda r, _: faults.FalseFields(file_hash=to_base32(r.randbytes(32))),
    "false FileSize": lambda r, _: faults.FalseFields(grown=r.choice([1, -1]) * r.randint(1, 5000)),
    "false FileHash and FileSize": lambda r, _: faults.FalseFields(
        file_hash=to_base32(r.randbytes(32)), grown=r.randint(1, 5000)
    ),
    "false file": _false_file,
}
"""False fields of narinfos under a good signature; only the sour origins give them."""

QUIRKS: Sequence[Draw] = (
    lambda _r, _: faults.Chunked(),
    lambda r, _: faults.Delay(r.uniform(0.0, 0.05)),
    lambda _r, _: faults.NoRanges(),
)
"""Faults that a healthy server may have, too."""

SWAP, DENIAL = "swapped URL, FileHash and FileSize", "swapper denies"
"""Faults of the swapper."""

_OFTEN = ("cut", "stall", "wrong bytes")
_SOUR_ONLY = frozenset({"404"})  # that would be true of a relay


class Weather:
    """The faults of every origin at every time, by the seed.

    :param seed: determines all faults.
    :param turn_s: seconds from the illness of one relay to that of the next.
    :param sizes: sizes of the served objects, by target.
    :ivar doomed: targets whose last bytes are always wrong.
    :ivar lies: number of transfers of a file that false narinfos may have caused, by the target of
        the file's own narinfo.
    :ivar swaps: the swapper's narinfos: the target of each, and of the one whose file it names.
    """

    def __init__(self, seed: int, *, turn_s: float, sizes: Mapping[str, int]) -> None:
        self._seed = seed
        self._turn_s = turn_s
        self._sizes = sizes
        self._began: float | None = None
        self._ended: float | None = None
        self._spells: list[list[Spell]] = [[] for _ in range(RELAYS)]
        self._horizon = 0
        self.doomed: set[str] = set()
        self.lies: Counter[str] = Counter()
        self.swaps: dict[str, str] = {}
        self.drawn: dict[str, int] = dict.fromkeys([*CATALOGUE, *LIES, SWAP, DENIAL], 0)

    def begin(self) -> None:
        """Begin the storm."""
        self._began = time.monotonic()

    def end(self) -> None:
        """End the storm: all origins are healthy."""
        self._ended = time.monotonic()

    def _since(self, at: float) -> float | None:
        """Return the seconds since the storm began; None before and after it."""
        if self._began is None or at < self._began or (self._ended and at >= self._ended):
            return None
        return at - self._began

    def _spells_of(self, relay: int, until: float) -> list[Spell]:
        while self._horizon * RELAYS * self._turn_s <= until + 1:
            self._add_cycle(self._horizon)
            self._horizon += 1
        return self._spells[relay]

    def _add_cycle(self, cycle: int) -> None:
        """Make each relay ill once in a cycle, with a dark spell in every other cycle."""
        chance = Random(f"{self._seed}/cycle/{cycle}")
        start = cycle * RELAYS * self._turn_s
        for relay in range(RELAYS):
            mood = chance.choice([Mood.FAULTY, Mood.FAULTY, Mood.SILENT, Mood.AWAY])
            begins = start + relay * self._turn_s + chance.uniform(0, 0.05) * self._turn_s
            self._spells[relay].append(Spell(begins, begins + 0.7 * self._turn_s, mood))
        if cycle % 2 == 0:
            mood = chance.choice([Mood.FAULTY, Mood.SILENT, Mood.AWAY])
            begins = start + 0.9 * self._turn_s
            for spells in self._spells:
                spells.append(Spell(begins, begins + chance.uniform(1.5, 3.0), mood))

    def mood(self, origin: int, at: float | None = None) -> Mood:
        """Return the health of an origin at a time (`time.monotonic`)."""
        since = self._since(time.monotonic() if at is None else at)
        if since is None:
            return Mood.WELL
        if origin < SOURS:
            return Mood.FAULTY
        if origin >= SWAPPER:
            return Mood.WELL
        for spell in self._spells_of(origin - SOURS, since):
            if spell.start <= since < spell.stop:
                return spell.mood
        return Mood.WELL

    def is_known_well(self, origin: int, at: float) -> bool:
        """Return whether an origin has been healthy for so long that the daemon must know."""
        if origin < SOURS or origin == SWAPPER:
            return False
        if self._began is None or at < self._began:
            return True
        if origin == PRIVATE:
            return True
        since = at - self._began
        calm = float("inf") if self._ended is None else self._ended - self._began
        start = known_at = float("-inf")
        for spell in sorted(self._spells_of(origin - SOURS, since), key=lambda s: s.start):
            if spell.start > min(since, calm):
                break
            stop = min(spell.stop, calm)
            if spell.start > known_at:  # else it is ill before that
                start = spell.start
            known_at = max(known_at, stop + min(LONGEST_PAUSE_S, stop - start) + NOTICE_S)
        return since >= known_at

    def plan(self, origin: int, request: Request) -> Sequence[Fault]:
        """Return the faults of one answer."""
        if origin == SWAPPER:
            return self._swap(request)
        mood = self.mood(origin)
        if mood is Mood.FAULTY and origin < SOURS and request.target in self.doomed:
            return [faults.WrongBytes(self._sizes[request.target] - 30), faults.Chunked()]
        chance = Random(f"{self._seed}/{origin}/{request.method}/{request.target}/{request.number}")
        size = self._sizes.get(request.target, 40)
        if mood is Mood.WELL:
            return [chance.choice(QUIRKS)(chance, size)] if chance.random() < 0.2 else []
        if mood is Mood.SILENT:
            return [faults.Silence()]
        if chance.random() >= RATES.get(origin, 0.85):
            return []
        if origin < SOURS and request.target.endswith(".narinfo") and chance.random() < LIARS:
            name = chance.choice(list(LIES))
            self.drawn[name] += 1
            self.lies[request.target] += 1
            return [LIES[name](chance, size)]
        names = [*CATALOGUE, *_OFTEN, *_OFTEN]
        name = chance.choice([n for n in names if origin < SOURS or n not in _SOUR_ONLY])
        self.drawn[name] += 1
        return [CATALOGUE[name](chance, size)]

    def _swap(self, request: Request) -> Sequence[Fault]:
        """Return the faults of the swapper: its narinfos need none; it may deny the file."""
        other = self.swaps.get(request.target)
        if other is not None:
            self.drawn[SWAP] += 1
            if request.number == 1:  # after ncps has noticed it, it must cost no transfer any more
                self.lies[other] += 1
            return []
        chance = Random(f"{self._seed}/swapper/{request.target}/{request.number}")
        if request.target in self._sizes and chance.random() < DENIALS:
            self.drawn[DENIAL] += 1
            return [faults.Status(404)]
        return []


def is_clean(visit_faults: Sequence[Fault]) -> bool:
    """Return whether a healthy server may give an answer with these faults."""
    kinds = (faults.Chunked, faults.NoRanges, faults.Encoded)
    is_encoded_twice = sum(isinstance(fault, faults.Encoded) for fault in visit_faults) > 1
    return not is_encoded_twice and all(
        isinstance(fault, kinds) or (isinstance(fault, faults.Delay) and fault.seconds <= 0.05)
        for fault in visit_faults
    )
