"""A core that fetches ahead, and clients that walk a closure."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from ncps.cache.ahead.rules import SMALL, AheadRules
from ncps.cache.answers import Outcome
from ncps.cache.cache import PullThrough
from ncps.peering import trail
from ncps.peering.trail import Trail
from tests.fakes.metrics import series
from tests.fakes.samples import OWN_KEY, Sample, sample, signed
from tests.fakes.stores import MemoryConfigStore
from tests.unit.cache.rig import CoreCase

RULES = AheadRules(policy=SMALL, small_size=50_000, at_once=4)


def chain(count: int, size: int = 20_000, name: str = "path") -> list[Sample]:
    """Make paths of which each refers to the next one."""
    made: list[Sample] = []
    for number in reversed(range(count)):
        one = sample(f"{name}{number}", size=size)
        made.insert(0, referring(one, made[:1]))
    return made


def referring(one: Sample, others: Sequence[Sample]) -> Sample:
    """Return the same path with references."""
    references = tuple(other.narinfo.store_path for other in others)
    return evolve(one, narinfo=signed(evolve(one.narinfo, references=references)))


class AheadCase(CoreCase):
    ahead = RULES
    small_size = 50_000

    def restart(self) -> None:
        super().restart()
        self.cache = PullThrough(
            self.world, self.core, public_key=OWN_KEY.public, config=MemoryConfigStore()
        )

    def ask(self, one: Sample, *, leads_on: bool = True) -> Outcome:
        """Ask for a narinfo as a client does; return the outcome."""
        outcome = self.get(self.cache.narinfo(one.digest, leads_on=leads_on)).outcome
        self.clock.advance(0)
        return outcome

    def lead_on(self, one: Sample) -> None:
        """Begin a walk at a path whose narinfo is known."""
        served = self.get(self.cache.narinfo(one.digest))
        self.core.ahead.narinfo_asked(one.digest, served._replace(outcome=Outcome.MISS))
        self.clock.advance(0)

    def release(self) -> None:
        """Let all held questions continue, and hold no more."""
        for each in self.scripted:
            each.is_silent = False
            each.release()

    def ask_through(self, one: Sample, *names: str) -> Outcome:
        """Do as `ask`, as a client of other caches."""
        with trail.following(Trail(names=names)):
            return self.ask(one)

    def narinfos_asked(self) -> list[str]:
        """The narinfos for which the upstreams were asked."""
        return [what for each in self.scripted for what, _ in each.asked("narinfo")]

    def nars_asked(self) -> list[str]:
        """The NARs for which the upstreams were asked."""
        return [what for each in self.scripted for what, _ in each.asked("nar")]

    @property
    def fetched(self) -> dict[str, float]:
        """Number of things fetched ahead, by kind."""
        return series(self.metrics.prefetched)

    @property
    def used(self) -> dict[str, float]:
        """Number of fetched things that clients asked for, by kind."""
        return series(self.metrics.prefetched_used)

    @property
    def dropped(self) -> dict[str, float]:
        """Number of things that were dropped, by reason."""
        return series(self.metrics.prefetch_dropped)
