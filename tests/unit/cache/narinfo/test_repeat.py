"""Narinfos that may be shown again without a call of the core."""

from __future__ import annotations

from ncps.aio.clocks import utc_now
from ncps.cache.narinfo.record import REFRESH_S
from ncps.cache.narinfo.state import NarInfoMemory
from tests.unit.cache.narinfo.rig import NarInfosCase


class RepeatTests(NarInfosCase):
    """Answers that the web layer may give again without asking."""

    def setUp(self) -> None:
        super().setUp()
        self.forgotten: list[str] = []
        self.narinfos.watch(self.forgotten.append)

    def may_repeat(self) -> bool:
        may_repeat = self.served().may_repeat
        self.assertIsNotNone(may_repeat)
        assert may_repeat is not None
        return may_repeat()

    def test_only_a_hit_that_is_held_may_be_repeated(self) -> None:
        """The first answer is a miss; without memory, nothing would report a change."""
        self.assertIsNone(self.served().may_repeat)
        self.assertTrue(self.may_repeat())
        self.narinfos._memory = NarInfoMemory(0)
        self.assertIsNone(self.served().may_repeat)

    def test_answer_for_a_stored_nar_lasts(self) -> None:
        """It is shown also while the upstreams are away, like the narinfo itself."""
        self.served()
        self.store_it()
        self.assertEqual([self.digest], self.forgotten)
        self.assertTrue(self.may_repeat())
        self.sicken(0, 1)
        self.assertTrue(self.may_repeat())

    def test_answer_for_a_nar_that_is_not_stored_depends_on_its_upstream(self) -> None:
        """P1: it may be shown only while clients can get its NAR."""
        self.served()
        may_repeat = self.served().may_repeat
        assert may_repeat is not None
        self.sicken(0)
        self.assertFalse(may_repeat())
        self.upstreams.candidates[0].health.answered()
        self.assertTrue(may_repeat())
        self.clock.advance(REFRESH_S)
        self.assertFalse(may_repeat())

    def test_lost_and_withdrawn_are_forgotten(self) -> None:
        """Withdrawing a narinfo also drops the answers made from it."""
        self.served()
        self.store_it()
        self.served()
        for take_back in (self.narinfos.lost, self.narinfos.withdraw):
            self.forgotten.clear()
            self.served()
            self.get(take_back(self.sample.key))
            self.assertIn(self.digest, self.forgotten)
        self.served()
        self.forgotten.clear()
        self.narinfos.changed(self.sample.key)
        self.assertEqual([self.digest], self.forgotten)

    def test_repeated_answers_are_uses(self) -> None:
        """For eviction and memory, repeated answers are uses."""
        self.served()
        self.get(self.uses.flush())
        self.clock.advance(100)
        self.narinfos.repeated([self.digest])
        self.get(self.uses.flush())
        row = self.get(self.catalog.narinfo(self.digest))
        assert row is not None
        self.assertEqual(utc_now(self.clock), row[0].last_used_at)
