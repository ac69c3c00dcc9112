"""Turns: bounds the requests that run at one upstream at the same time; others wait."""

from __future__ import annotations

from math import inf
from typing import Final

from twisted.internet.interfaces import IReactorTime

from ncps.aio.bulkhead import Bulkhead
from ncps.aio.guess import is_unwanted
from ncps.observe.metrics import Metrics
from ncps.peering import trail
from ncps.settings.schema.upstream import UpstreamsSettings

_SETTINGS: Final = {"queue": "cache-upstream-max-queue", "patience": "cache-upstream-queue-timeout"}


class Turns:
    """The places of requests at one upstream.

    Guesses (see `ncps.aio.guess`) have places of their own, so that no client waits for a guess.
    A guess fails if no place is free: if it waited, a client that joined it would wait, too.

    :param host: host of the upstream, for messages.
    :param metrics: count requests refused for a bound; None if no setting sets the bounds.
    """

    def __init__(
        self, clock: IReactorTime, host: str, bounds: UpstreamsSettings, metrics: Metrics | None
    ) -> None:
        self._clock = clock
        self._host = host
        self._bounds = bounds
        self._metrics = metrics
        self._transfers = self._places("a NAR transfer", bounds.max_connections)
        self._guessed_transfers = self._places_of_guesses("a NAR")
        self._guessed_queries = self._places_of_guesses("a query")
        last = trail.DISTANCES - 1
        self._queries = tuple(
            self._places("a query", bounds.max_queries, trail.FAR_S if distance == last else inf)
            for distance in range(trail.DISTANCES)
        )

    @property
    def transfers(self) -> Bulkhead:
        """The places of NAR transfers, for the present work."""
        return self._guessed_transfers if is_unwanted() else self._transfers

    @property
    def queries(self) -> Bulkhead:
        """The places of queries, for the distance of the present question."""
        return self._guessed_queries if is_unwanted() else self._queries[trail.distance()]

    def _places(self, what: str, size: int, most_s: float = inf) -> Bulkhead:
        return Bulkhead(
            self._clock,
            f"{what} at {self._host}",
            size=size,
            queue=self._bounds.max_queue,
            patience_s=min(self._bounds.queue_timeout_s, most_s),
            reached=lambda why: self.reached(_SETTINGS[why]),
        )

    def _places_of_guesses(self, what: str) -> Bulkhead:
        what = f"{what} that is a guess at {self._host}"
        return Bulkhead(
            self._clock, what, size=self._bounds.max_prefetches, queue=0, patience_s=0.0
        )

    def reached(self, limit: str) -> None:
        """Count a request that was refused for a bound.

        :param limit: the name of the bound's setting.
        """
        if self._metrics is not None:
            self._metrics.limit_reached(limit).inc()
