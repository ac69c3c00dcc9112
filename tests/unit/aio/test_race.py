"""Race: the first success wins, losers continue, and an owner may end the race."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.race import Race
from ncps.aio.tasks import Tasks
from ncps.errors import Corrupt, NcpsError, Unavailable
from ncps.peering import trail
from ncps.peering.trail import Trail


class RaceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.tasks = Tasks(Clock())
        self.attempts: dict[str, Deferred[int]] = {}
        self.trails: list[tuple[str, ...]] = []
        self.lost: list[tuple[str, str]] = []
        self.discarded: list[int] = []
        self.race: Race[str, int] = Race(
            self.tasks, self.attempt, self.note_lost, self.discarded.append
        )
        self.winner = Deferred.fromCoroutine(self.race.winner())

    async def attempt(self, entrant: str) -> int:
        self.trails.append(trail.current().names)
        self.attempts[entrant] = Deferred()
        return await self.attempts[entrant]

    def note_lost(self, entrant: str, error: NcpsError) -> None:
        self.lost.append((entrant, str(error)))

    def enter(self, *entrants: str) -> None:
        for entrant in entrants:
            self.race.enter(f"ask {entrant}", entrant)

    def test_first_success_wins_and_a_later_one_is_discarded(self) -> None:
        """A losing attempt continues until its own end."""
        self.enter("a", "b")
        self.attempts["b"].callback(2)
        self.assertEqual(("b", 2), self.successResultOf(self.winner))
        self.assertEqual((["a"], True), (self.race.running, self.race.is_over))
        self.attempts["a"].callback(1)
        self.assertEqual(([], [1]), (self.race.running, self.discarded))

    def test_failures_are_reported_and_end_nothing(self) -> None:
        """The owner decides whether another attempt begins, also after the end of the race."""
        self.enter("a", "b", "c")
        self.attempts["a"].errback(Unavailable("away"))
        self.assertNoResult(self.winner)
        self.attempts["b"].callback(2)
        self.attempts["c"].errback(Corrupt("bad"))
        self.assertEqual([("a", "away"), ("c", "bad")], self.lost)
        self.assertEqual(("b", 2), self.successResultOf(self.winner))

    def test_owner_ends_it(self) -> None:
        """The owner ends the race without a winner, or with an error."""
        self.race.end()
        self.assertIsNone(self.successResultOf(self.winner))
        other: Race[str, int] = Race(self.tasks, self.attempt, self.note_lost)
        waiting = Deferred.fromCoroutine(other.winner())
        other.end(Unavailable("nobody has it"))
        self.failureResultOf(waiting, Unavailable)

    def test_a_fault_of_ours_counts_as_a_failure(self) -> None:
        """An unexpected error is logged and counts as a failure, so no client waits for it."""
        self.enter("a")
        self.attempts["a"].errback(ZeroDivisionError())
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.assertEqual(["a"], [entrant for entrant, _ in self.lost])

    def test_a_client_that_leaves_ends_no_attempt(self) -> None:
        """A success after the end of the client is discarded."""
        self.enter("a")
        self.winner.cancel()
        self.failureResultOf(self.winner, CancelledError)
        self.attempts["a"].callback(1)
        self.assertEqual([1], self.discarded)

    def test_a_stop_reaches_the_client(self) -> None:
        """An attempt that is cancelled with its tasks cancels the wait for the race."""
        self.enter("a")
        self.attempts["a"].cancel()
        self.failureResultOf(self.winner, CancelledError)

    def test_attempts_have_the_trail_of_the_request(self) -> None:
        """Attempts that begin later, from a timer, have the trail as well."""
        with trail.following(Trail(("cache.example",))):
            race: Race[str, int] = Race(self.tasks, self.attempt, self.note_lost)
        race.enter("ask a", "a")
        self.assertEqual([("cache.example",)], self.trails)
