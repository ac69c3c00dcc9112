"""Log lines of level debug: the decisions of the core, and their reasons."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.logger import LogLevel, capturedLogs, formatEvent

from ncps.observe.decisions import log_decisions
from tests.fakes.samples import sample
from tests.unit.cache.rig import CoreCase


class DecisionTests(CoreCase):
    def setUp(self) -> None:
        super().setUp()
        self.sample = sample(size=100_000)
        self.origin.add(self.sample)
        log_decisions(True)
        self.addCleanup(log_decisions, False)

    def said(self, step: Callable[[], object]) -> list[str]:
        """Return the decisions of a step."""
        with capturedLogs() as events:
            step()
        return [formatEvent(event) for event in events if event["log_level"] is LogLevel.debug]

    def test_a_miss_is_explained(self) -> None:
        """The lines say why it was no hit, which upstreams were asked, and why a download began."""
        both = f"{self.origin.name}, {self.mirror.name}"
        narinfo, nar = f"{self.sample.digest}.narinfo", self.sample.key.file_name
        told = self.said(lambda: self.learn(self.sample))
        self.assertEqual(
            told,
            [
                f"narinfo {self.sample.digest} is no hit: nothing about it is recorded",
                f"{narinfo}: upstreams to ask, in this order: {both}",
                f"{narinfo}: {self.origin.name} has it",
            ],
        )
        told = self.said(lambda: self.download(self.sample.key))
        self.assertEqual(
            told[0], f"download of {nar} begins: it has a narinfo, and was never stored"
        )
        self.assertRegex(told[1], rf"\Adownload of {nar}: this process has its lease, number \d+\Z")
        self.assertEqual(
            told[2:], [f"download of {nar}: {self.origin.name} is asked from byte 0 on"]
        )

    def test_a_hit_is_silent(self) -> None:
        """A ready answer needs no decision."""
        self.learn(self.sample)
        self.download(self.sample.key)
        self.learn(self.sample)
        self.assertEqual(self.said(lambda: self.learn(self.sample)), [])
        self.assertEqual(self.said(lambda: self.download(self.sample.key)), [])

    def test_an_upstream_that_is_away(self) -> None:
        """The line says why no upstream was asked, and the result."""
        self.learn(self.sample)
        for upstream in self.scripted:
            upstream.is_away = True
        told = []
        for number in range(8):
            told += self.said(partial(self.ask_in_vain, f"{number:032}"))
        self.assertIn(f"{0:032}.narinfo: no good answer: ", " ".join(told))
        self.assertIn(f"{self.origin.name} (not asked now: ", " ".join(told))
        (why, *_) = self.said(partial(self.ask_in_vain, self.sample.digest))
        self.assertIn(f"is not stored, and {self.origin.name} is away", why)

    def ask_in_vain(self, digest: str) -> None:
        """Ask for a narinfo that no upstream has."""
        self.failureResultOf(self.start(self.narinfos.get(digest)))

    def test_they_are_off_unless_wanted(self) -> None:
        """At level info, none of these lines is made."""
        log_decisions(False)
        self.assertEqual(self.said(lambda: self.learn(self.sample)), [])
