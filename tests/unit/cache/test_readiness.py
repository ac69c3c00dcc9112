"""Readiness: the states of the parts are known within a second, also if a part hangs."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.tasks import Tasks
from ncps.cache.readiness import STALE_S, WAIT_S, Looks, PartState
from ncps.errors import Unavailable


class Part:
    """A part that answers immediately, or only when the test lets it."""

    def __init__(self) -> None:
        self.looks = 0
        self.hangs: Deferred[None] | None = None
        self.error: Unavailable | None = None

    async def look(self) -> None:
        self.looks += 1
        if self.hangs is not None:
            await self.hangs
        if self.error is not None:
            raise self.error


class LooksTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.store, self.database = Part(), Part()
        tasks = Tasks(self.clock)
        parts = {"storage": self.store.look, "database": self.database.look}
        self.looks = Looks(self.clock, tasks, parts)

    def ask(self) -> dict[str, PartState]:
        asking = Deferred.fromCoroutine(self.looks.all())
        if not asking.called:
            self.clock.advance(WAIT_S)
        return self.successResultOf(asking)

    def test_parts_that_answer(self) -> None:
        """A state that was seen now has the age 0."""
        self.database.error = Unavailable("locked")
        found = self.ask()
        self.assertEqual(
            found, {"storage": PartState("ok", 0.0), "database": PartState("locked", 0.0)}
        )

    def test_a_part_that_hangs(self) -> None:
        """It keeps its last state for a while, and then counts as failed; others do not change."""
        self.ask()
        self.store.hangs = Deferred()
        self.clock.advance(3.0)
        found = self.ask()
        self.assertEqual(found["storage"], PartState("ok", 3.0 + WAIT_S))
        self.assertEqual(found["database"], PartState("ok", 0.0))
        self.clock.advance(STALE_S)
        self.assertEqual(self.ask()["storage"], PartState("no answer for 11.0 s", 14.0))
        self.assertEqual(self.store.looks, 2)
        self.store.hangs.callback(None)
        self.store.hangs = None
        self.assertEqual(self.ask()["storage"], PartState("ok", 0.0))

    def test_all_hang(self) -> None:
        """The look waits for all together; a part that was never seen has no state."""
        self.store.hangs = self.database.hangs = Deferred()
        found = self.ask()
        self.assertEqual([seen.state for seen in found.values()], ["no answer for 0.5 s"] * 2)

    def test_a_failed_part_stays_failed(self) -> None:
        """A failed part stays failed until a look finds it working."""
        self.store.error = Unavailable("not mounted")
        self.ask()
        self.store.hangs = Deferred()
        self.assertEqual(self.ask()["storage"].state, "not mounted")
