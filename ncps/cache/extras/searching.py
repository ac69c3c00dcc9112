"""Searching: asks upstreams for an extra, once for all clients, and not again after a denial."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

from ncps.aio.bulkhead import Bulkhead
from ncps.aio.recent import RecentSet
from ncps.aio.single_flight import SingleFlight
from ncps.ask.policy import AllAway
from ncps.cache.answers import Absent, Outcome
from ncps.cache.narinfo.search import in_ring
from ncps.cache.world import World
from ncps.errors import NotFound, Oversized
from ncps.observe.tracing.spans import span
from ncps.peering import trail
from ncps.ports import Upstream

T = TypeVar("T")

AT_ONCE: Final = 4
"""Extras that are fetched at the same time for our clients: each one is in memory until then."""

AT_ONCE_OF_CACHES: Final = 2
"""The same for questions through other caches; each `trail.distance` has places of its own."""

QUEUE: Final = 200
"""Requests that wait for a place, at most."""

PATIENCE_S: Final = 30.0
"""Seconds for which each request waits, at most."""


class ExtraSearch:
    """Asks the upstreams for extras.

    :param negatives: extras that no upstream had a moment ago.
    :param is_absent_when_away: whether an extra that no upstream could be asked for is absent; else
        it is Unavailable.
    """

    def __init__(
        self, world: World, *, negatives: RecentSet, max_size: int, is_absent_when_away: bool
    ) -> None:
        self.max_size = max_size
        self.negatives = negatives
        self._upstreams = world.upstreams
        self._metrics = world.metrics
        self._is_absent_when_away = is_absent_when_away
        self._flights: SingleFlight[tuple[str, tuple[str, ...]], Any] = SingleFlight(
            world.tasks, "extra"
        )
        self._places = tuple(
            Bulkhead(
                world.clock,
                "logs, listings and links from upstreams",
                size=AT_ONCE_OF_CACHES if distance else AT_ONCE,
                queue=QUEUE,
                patience_s=PATIENCE_S if distance < trail.DISTANCES - 1 else trail.FAR_S,
            )
            for distance in range(trail.DISTANCES)
        )

    async def first(
        self,
        path: str,
        question: Callable[[Upstream], Coroutine[Any, Any, T]],
        keep: Callable[[T], Awaitable[None]] | None = None,
    ) -> tuple[T, str, Outcome]:
        """Return the first good answer of an upstream, and the name of that upstream.

        Raises Absent, Unavailable or Corrupt if there is none.

        :param path: the extra's path below the base URL.
        :param question: asks one upstream; raises as `Upstream.text`.
        :param keep: keeps the answer, once for all waiting callers; raises nothing.
        """
        question_trail = trail.current()
        if question_trail.has_come_round:
            raise in_ring(path)
        if path in self.negatives:
            raise Absent(f"no upstream has {path}", outcome=Outcome.NEGATIVE)
        key = (path, question_trail.names)
        outcome = Outcome.COALESCED if key in self._flights else Outcome.MISS
        value, upstream = await self._flights.join(key, lambda: self._ask(path, question, keep))
        return value, upstream, outcome

    async def _ask(
        self,
        path: str,
        question: Callable[[Upstream], Coroutine[Any, Any, T]],
        keep: Callable[[T], Awaitable[None]] | None,
    ) -> tuple[T, str]:
        with trail.asking(), span("extra.search", {"ncps.extra": path}):
            async with self._places[trail.distance()]:
                try:
                    found = await self._upstreams.first(path, question)
                except AllAway as error:
                    if not self._is_absent_when_away:
                        raise
                    raise Absent(str(error), outcome=Outcome.AWAY) from error
                except NotFound as error:
                    if not error.is_certain:
                        raise Absent(str(error), outcome=Outcome.UNSURE) from error
                    self.negatives.add(path)
                    raise Absent(str(error), outcome=Outcome.MISS) from error
                if keep is not None:
                    await keep(found.value)
        return found.value, found.upstream.name

    async def text(self, upstream: Upstream, path: str) -> bytes:
        """Fetch an extra; a question for `first`. Raises as `Upstream.text`."""
        try:
            return await upstream.text(path, self.max_size)
        except Oversized:
            self._metrics.limit_reached("cache-extra-max-object-size").inc()
            raise
