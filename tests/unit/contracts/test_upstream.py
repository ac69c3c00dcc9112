"""ScriptedUpstream fulfils the contract of its port, and follows its script."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Corrupt, Unavailable
from ncps.nix.realisation import Realisation
from ncps.ports import Upstream, UpstreamBody
from tests.contract.upstream import Origin, UpstreamContract
from tests.fakes.samples import Sample
from tests.fakes.upstream import HONEST, Script, ScriptedUpstream


class ScriptedOrigin(Origin):
    def __init__(self) -> None:
        self.scripted = ScriptedUpstream()
        self.upstream: Upstream = self.scripted

    def add(self, sample: Sample) -> None:
        self.scripted.add(sample)

    def put(self, path: str, data: bytes) -> None:
        self.scripted.texts[path] = data

    def add_realisation(self, realisation: Realisation) -> None:
        self.scripted.realisations[realisation.key] = realisation

    def spoil(self, sample: Sample) -> None:
        self.scripted.narinfos[sample.digest] = Corrupt("a web page")

    def fail(self) -> None:
        self.scripted.is_away = True

    def cut(self, at: int) -> None:
        self.scripted.scripts.append(Script(cut_at=at))

    def stall(self, at: int) -> None:
        self.scripted.scripts.append(Script(stall_at=at))

    def ignore_ranges(self) -> None:
        self.scripted.otherwise = evolve(HONEST, ignores_range=True)

    def work(self) -> None:
        pass


class ScriptedUpstreamTests(UpstreamContract, SynchronousTestCase):
    def origin(self) -> Origin:
        there = ScriptedOrigin()
        self.scripted = there.scripted
        return there

    def open(self, script: Script, offset: int = 0) -> UpstreamBody:
        self.scripted.scripts.append(script)
        return self.get(self.scripted.open_nar(self.sample.url, offset=offset))

    def test_lies_ends_and_extras(self) -> None:
        """The body has exactly the faults of the script."""
        file = self.sample.file
        lied = self.get(self.read(self.open(Script(lie_at=5, chunk=7))))
        self.assertEqual(
            [5], [i for i, (a, b) in enumerate(zip(lied, file, strict=True)) if a != b]
        )
        self.assertEqual(file[:9], self.get(self.read(self.open(Script(end_at=9)))))
        self.assertEqual(file + b"x", self.get(self.read(self.open(Script(extra=b"x")))))
        self.assertEqual(7, self.open(Script(total=7)).total)
        self.assertIsNone(self.open(Script(total=0)).total)

    def test_waits_are_released(self) -> None:
        """Heads and bodies wait until the test releases them or makes them fail."""
        self.scripted.scripts.append(Script(hold=True, stall_at=10))
        opening = Deferred.fromCoroutine(self.scripted.open_nar(self.sample.url))
        self.assertNoResult(opening)
        self.scripted.release()
        body = self.successResultOf(opening)
        reading = Deferred.fromCoroutine(self.read(body))
        self.assertNoResult(reading)
        self.assertEqual(1, self.scripted.held)
        self.scripted.release(Unavailable("idle"))
        self.failureResultOf(reading, Unavailable)
        self.assertEqual(0, self.scripted.bodies)
