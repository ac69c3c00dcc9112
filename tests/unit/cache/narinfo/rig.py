"""A core with one path at an upstream, and requests for it."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ncps.ask.health import FAILURES
from ncps.cache.answers import ServedNarInfo
from tests.fakes.samples import sample
from tests.fakes.upstream import ScriptedUpstream
from tests.unit.cache.rig import CoreCase


class NarInfosCase(CoreCase):
    def setUp(self) -> None:
        super().setUp()
        self.sample = sample(size=100_000)
        self.origin.add(self.sample)
        self.digest = self.sample.digest

    def ask(self) -> Deferred[ServedNarInfo]:
        return self.start(self.narinfos.get(self.digest))

    def served(self) -> ServedNarInfo:
        return self.successResultOf(self.ask())

    def asked(self, upstream: ScriptedUpstream | None = None) -> int:
        return len((upstream or self.origin).asked("narinfo"))

    def sicken(self, *upstreams: int) -> None:
        """Let these upstreams be known to be away."""
        for number in upstreams:
            for _ in range(FAILURES):
                self.upstreams.candidates[number].health.failed("refused")

    def store_it(self) -> None:
        self.download(self.sample.key)
