"""The contract of every implementation of Notices, as long as nothing is lost."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ncps.ports import Notice, Notices
from tests.contract.running import Contract


class Subscriber:
    """A subscriber that collects its notices; a test can wait for one."""

    def __init__(self) -> None:
        self.received: list[Notice] = []
        self._waiting: dict[Notice, Deferred[None]] = {}

    def __call__(self, notice: Notice) -> None:
        self.received.append(notice)
        waiting = self._waiting.pop(notice, None)
        if waiting is not None:
            waiting.callback(None)

    async def receives(self, notice: Notice) -> None:
        """Wait for a notice."""
        if notice not in self.received:
            waiting = self._waiting[notice] = Deferred()
            await waiting


class NoticesContract(Contract):
    """Promises between replicas; two objects represent two replicas.

    :ivar notices: one of them, which listens.
    :ivar other_notices: the other one, which listens, too.
    """

    notices: Notices
    other_notices: Notices

    async def test_a_notice_reaches_the_others_and_not_its_sender(self) -> None:
        """A notice reaches each subscriber of the others once, and not its sender."""
        here, there, there_too = Subscriber(), Subscriber(), Subscriber()
        self.notices.subscribe(here)
        self.other_notices.subscribe(there)
        self.other_notices.subscribe(there_too)
        first, second = Notice("narinfo", "a" * 32), Notice("nar", "b.nar.xz")
        await self.notices.publish(first)
        await there.receives(first)
        await there_too.receives(first)
        await self.other_notices.publish(second)
        await here.receives(second)
        self.assertEqual(here.received, [second])
        self.assertEqual(there.received, [first])
        self.assertEqual(there_too.received, [first])

    async def test_every_kind_arrives_as_it_was(self) -> None:
        """Kind and name arrive unchanged."""
        there = Subscriber()
        self.other_notices.subscribe(there)
        sent = [
            Notice("narinfo", "0" * 32),
            Notice("nar", f"{'1' * 52}-{'2' * 32}.nar.zst"),
            Notice("absent", "3" * 32),
        ]
        for notice in sent:
            await self.notices.publish(notice)
        await there.receives(sent[-1])
        self.assertEqual(there.received, sent)
