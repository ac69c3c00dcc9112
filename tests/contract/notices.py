"""The contract of every implementation of Notices, as long as nothing is lost."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ncps.ports import Notice, Notices
from tests.contract.running import Contract


class Ears:
    """The notices that a subscriber has heard; a test may wait for one."""

    def __init__(self) -> None:
        self.heard: list[Notice] = []
        self._waiting: dict[Notice, Deferred[None]] = {}

    def __call__(self, notice: Notice) -> None:
        self.heard.append(notice)
        waiting = self._waiting.pop(notice, None)
        if waiting is not None:
            waiting.callback(None)

    async def hears(self, notice: Notice) -> None:
        """Wait for a notice."""
        if notice not in self.heard:
            waiting = self._waiting[notice] = Deferred()
            await waiting


class NoticesContract(Contract):
    """Two objects stand for two replicas.

    :ivar notices: one of them, listening.
    :ivar other_notices: the other, listening, too.
    """

    notices: Notices
    other_notices: Notices

    async def test_the_other_replica_is_told_and_oneself_is_not(self) -> None:
        """A notice comes once to each subscriber of the others, and not back."""
        here, there, there_too = Ears(), Ears(), Ears()
        self.notices.subscribe(here)
        self.other_notices.subscribe(there)
        self.other_notices.subscribe(there_too)
        first, second = Notice("narinfo", "a" * 32), Notice("nar", "b.nar.xz")
        await self.notices.publish(first)
        await there.hears(first)
        await there_too.hears(first)
        await self.other_notices.publish(second)
        await here.hears(second)
        self.assertEqual(here.heard, [second])
        self.assertEqual(there.heard, [first])
        self.assertEqual(there_too.heard, [first])

    async def test_every_kind_arrives_as_it_was(self) -> None:
        """Kind and name come out as they went in."""
        there = Ears()
        self.other_notices.subscribe(there)
        sent = [
            Notice("narinfo", "0" * 32),
            Notice("nar", f"{'1' * 52}-{'2' * 32}.nar.zst"),
            Notice("absent", "3" * 32),
        ]
        for notice in sent:
            await self.notices.publish(notice)
        await there.hears(sent[-1])
        self.assertEqual(there.heard, sent)
