"""Invalidation: when one process changes something, the others no longer show the old state."""

from __future__ import annotations

from ncps.cache.answers import Outcome
from ncps.errors import NotFound
from ncps.ports import Notice
from tests.fakes.leases import MemoryNotices
from tests.fakes.samples import sample
from tests.unit.cache.rig import CoreCase


class NoticeTests(CoreCase):
    def setUp(self) -> None:
        super().setUp()
        self.others = MemoryNotices(beside=self.notices)
        self.heard: list[Notice] = []
        self.others.subscribe(self.heard.append)
        self.sample = sample(size=1000)

    def say(self, notice: Notice) -> None:
        """Let another process publish a notice."""
        self.get(self.others.publish(notice))

    def absent(self) -> None:
        """Let both names be remembered as absent."""
        self.refused(self.narinfos.get(self.sample.digest), NotFound)
        self.refused(self.nars.open(self.sample.key), NotFound)
        self.assertIn(self.sample.digest, self.negatives)
        self.assertIn(self.sample.key, self.negatives)

    def test_others_hear_what_is_there_now(self) -> None:
        """Notices tell of a new narinfo, of its NAR, and when that is stored."""
        self.origin.add(self.sample)
        self.learn(self.sample)
        digest, file_name = self.sample.digest, self.sample.key.file_name
        self.assertEqual([Notice("absent", digest), Notice("absent", file_name)], self.heard)
        self.heard.clear()
        self.download(self.sample.key)
        self.assertIn(Notice("nar", file_name), self.heard)

    def test_nothing_is_told_where_no_other_process_is(self) -> None:
        """Not even a task begins for it."""
        self.notices.is_alone = True
        self.origin.add(self.sample)
        self.learn(self.sample)
        self.download(self.sample.key)
        self.assertEqual([], self.heard)

    def test_absence_is_taken_back(self) -> None:
        """A narinfo that another process has found is asked for again."""
        self.absent()
        self.origin.add(self.sample)
        self.refused(self.narinfos.get(self.sample.digest), NotFound)
        self.say(Notice("absent", self.sample.digest))
        self.say(Notice("absent", self.sample.key.file_name))
        self.learn(self.sample)
        self.download(self.sample.key)

    def test_changes_are_looked_up(self) -> None:
        """A narinfo that another process has changed is read from the catalog again."""
        self.origin.add(self.sample)
        self.learn(self.sample)
        for notice in (
            Notice("narinfo", self.sample.digest),
            Notice("nar", self.sample.key.file_name),
            Notice("gap"),
        ):
            self.assertEqual(Outcome.HIT, self.get(self.narinfos.get(self.sample.digest)).outcome)
            self.assertEqual(1, len(self.memory))
            changes = self.memory.changes
            self.say(notice)
            self.assertEqual(0, len(self.memory), notice)
            self.assertGreaterEqual(self.memory.changes, changes)
        self.assertEqual(2, len(self.heard), "what is heard is not repeated")

    def test_gap_puts_everything_in_doubt(self) -> None:
        """After a gap, no absence is remembered, either."""
        self.absent()
        self.say(Notice("gap"))
        self.assertEqual(0, len(self.negatives))

    def test_nonsense_does_no_harm(self) -> None:
        """A notice about something unknown does no harm."""
        self.say(Notice("nar", "../../etc"))
        self.say(Notice("narinfo", ""))

    def test_lost_notice_is_outlived(self) -> None:
        """Held narinfos are read again at intervals."""
        self.origin.add(self.sample)
        self.learn(self.sample)
        self.get(self.narinfos.get(self.sample.digest))
        self.get(self.board.expire())
        self.assertEqual(0, len(self.memory))
        self.assertEqual(Outcome.HIT, self.get(self.narinfos.get(self.sample.digest)).outcome)
