"""At hand: narinfos whose upstream is away, while the NAR is here under another name."""

from __future__ import annotations

from unittest.mock import patch

from attrs import evolve

from ncps.ask.health import AWAY_S, FAILURES
from ncps.cache.answers import Absent, Outcome
from ncps.cache.nar.at_hand import AtHand
from ncps.errors import Unavailable
from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import NarKey, opaque_key
from ncps.peering import trail
from ncps.peering.trail import Trail
from ncps.ports import NarRecord
from tests.fakes.samples import sample
from tests.unit.cache.rig import CoreCase


class AtHandTests(CoreCase):
    def setUp(self) -> None:
        super().setUp()
        self.sample = sample(size=100_000)
        self.origin.add(self.sample)
        self.at_hand = AtHand(self.world, self.narinfos, self.nars)

    def lose_upstreams(self) -> None:
        """Let all upstreams be away for some time."""
        for upstream, candidate in zip(self.scripted, self.upstreams.candidates, strict=True):
            upstream.is_away = True
            for _ in range(FAILURES):
                candidate.health.failed("refused")
        self.clock.advance(AWAY_S)
        for candidate in self.upstreams.candidates:
            candidate.health.failed("refused")

    def assert_served(self) -> NarKey:
        """Check that narinfo and NAR are served from here; return the name of the NAR."""
        found = self.get(self.at_hand.narinfo(self.sample.digest))
        self.assertIs(Outcome.HIT, found.outcome)
        key = NarKey.parse(NarInfo.parse(found.text).url.rpartition("/")[2])
        self.assertEqual(self.sample.file, self.download(key))
        self.assertEqual(key, found.nar.key if found.nar is not None else None)
        return key

    def test_stored_under_the_name_of_the_upstream(self) -> None:
        """A client has asked for the NAR by that name, and so stored the NAR of our narinfo."""
        self.learn(self.sample)
        self.download(self.sample.conventional)
        self.lose_upstreams()
        before = len(self.origin.asked("nar"))
        self.assertEqual(self.sample.key, self.assert_served())
        self.assertEqual(before, len(self.origin.asked("nar")))
        self.assertIsNotNone(self.catalog.records[self.sample.key].verified_at)

    def test_verified_under_the_name_of_the_upstream(self) -> None:
        """A verified NAR gives its name to the narinfo, without a reading of its bytes."""
        self.learn(self.sample)
        self.download(self.sample.conventional)
        there = self.catalog.records[self.sample.conventional]
        nar = self.catalog.records[self.sample.key]
        self.catalog.records[self.sample.conventional] = evolve(
            there, compression="xz", nar_hash=nar.nar_hash, verified_at=there.stored_at
        )
        self.lose_upstreams()
        self.assertEqual(self.sample.conventional, self.assert_served())
        self.assertNotIn(self.sample.key, self.store.objects)

    def test_stored_under_another_name_of_ours(self) -> None:
        """Each file of one NAR has a name of its own; any file that is here will do."""
        self.learn(self.sample)
        self.download(self.sample.key)
        nar = self.catalog.records[self.sample.key]
        assert nar.nar_hash is not None
        other = opaque_key("xz", nar.nar_hash, 1)
        entry = self.catalog.entries[self.sample.digest]
        entry = evolve(entry, narinfo=evolve(entry.narinfo, url=other.url))
        self.get(self.catalog.add_narinfo(entry, evolve(nar.without_bytes(), key=other)))
        self.memory.clear()
        self.lose_upstreams()
        self.assertEqual(self.sample.key, self.assert_served())

    def test_file_without_a_row(self) -> None:
        """Right bytes in the store are adopted; wrong ones are not shown."""
        self.learn(self.sample)
        self.lose_upstreams()
        self.store.put(self.sample.key, b"x" + self.sample.file[1:])
        self.assertIs(Outcome.AWAY, self.absent().outcome)
        self.store.put(self.sample.key, self.sample.file)
        self.assertEqual(self.sample.key, self.assert_served())

    def absent(self) -> Absent:
        error = self.refused(self.at_hand.narinfo(self.sample.digest), Absent)
        assert isinstance(error, Absent)
        return error

    def test_nothing_here(self) -> None:
        """A NAR that is not here stays absent, because no upstream can be asked."""
        self.learn(self.sample)
        self.lose_upstreams()
        self.assertIs(Outcome.AWAY, self.absent().outcome)

    def test_store_that_is_unsure(self) -> None:
        """If the store cannot tell, the verdict on the upstreams stands."""
        self.learn(self.sample)
        self.download(self.sample.conventional)
        self.lose_upstreams()
        self.store.failing = Unavailable("the store is away")
        self.assertIs(Outcome.AWAY, self.absent().outcome)

    def test_nothing_is_looked_for_that_upstreams_have_no_part_in(self) -> None:
        """While an absence is remembered, nothing looks for the NAR a second time."""

        def looked(_: NarKey) -> NarRecord:
            self.fail("was looked for")

        self.learn(self.sample)
        digest = self.sample.digest
        with patch.object(self.nars, "is_here", looked):
            self.lose_upstreams()
            with trail.following(Trail(("ncps-abcd",), has_come_round=True)):
                error = self.refused(self.at_hand.narinfo(digest), Absent)
            self.assertIs(Outcome.RING, error.outcome)
            self.negatives.add(digest)
            self.assertIs(Outcome.NEGATIVE, self.absent().outcome)
