"""Turns: the places of requests at an upstream, and those of guesses."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.bulkhead import Bulkhead
from ncps.aio.guess import guessing
from ncps.errors import Busy
from ncps.observe.metrics import Metrics
from ncps.settings.schema.upstream import UpstreamsSettings
from ncps.upstream.turns import Turns
from tests.fakes.metrics import series

BOUNDS = UpstreamsSettings(max_connections=1, max_queries=1, max_prefetches=1, queue_timeout_s=60.0)


class TurnsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.metrics = Clock(), Metrics()
        self.turns = Turns(self.clock, "a.example.org", BOUNDS, self.metrics)

    def take(self, places: Bulkhead) -> Deferred[None]:
        return Deferred.fromCoroutine(places.acquire())

    def test_guesses_have_places_of_their_own(self) -> None:
        """No client waits for a guess, and no guess waits for a client."""
        with guessing():
            self.successResultOf(self.take(self.turns.transfers))
            self.successResultOf(self.take(self.turns.queries))
        self.successResultOf(self.take(self.turns.transfers))
        self.successResultOf(self.take(self.turns.queries))

    def test_a_guess_that_a_client_has_joined_has_those_of_clients(self) -> None:
        with guessing() as guess:
            guess.is_wanted = True
            self.assertIs(self.turns.transfers, self.turns._transfers)
            self.assertIn(self.turns.queries, self.turns._queries)

    def test_only_clients_that_are_turned_away_are_counted(self) -> None:
        """A guess does not even wait: a client that joined it would wait, too."""
        with guessing():
            for places in (self.turns.transfers, self.turns.queries):
                self.successResultOf(self.take(places))
                self.failureResultOf(self.take(places), Busy)
        self.assertEqual({}, series(self.metrics.limit_reached))
        self.successResultOf(self.take(self.turns.transfers))
        waiting = self.take(self.turns.transfers)
        self.clock.advance(60)
        self.failureResultOf(waiting, Busy)
        self.assertEqual({"cache-upstream-queue-timeout": 1}, series(self.metrics.limit_reached))
