"""Searches in a trace: one span for each, links of joining requests, hedges."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.tasks import Tasks
from ncps.ask.choose import Upstreams
from ncps.ask.health import SLOWEST_HEDGE_S
from ncps.cache.narinfo.search import Searches
from ncps.observe.metrics import Metrics
from ncps.observe.tracing.spans import Step, span
from ncps.ports import Upstream
from tests.fakes.spans import MemorySpan
from tests.fakes.upstream import ScriptedUpstream


class TracedSearchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.tasks = Tasks(self.clock)
        upstreams = [ScriptedUpstream(name, 10) for name in "ab"]
        self.upstreams = Upstreams(self.clock, self.tasks, upstreams, Metrics())
        self.searches: Searches[str] = Searches(self.clock, self.tasks)

    async def ask(self, upstream: Upstream) -> str:
        with span(f"ask {upstream.name}"):
            await deferLater(self.clock, 5)
            return upstream.name

    async def search(self) -> str:
        return (await self.upstreams.first("x", self.ask)).value

    def request(self, name: str) -> MemorySpan:
        root = MemorySpan(name)
        with Step(root, ends=False):
            Deferred.fromCoroutine(self.searches.join("0" * 32, self.search))
        return root

    def test_one_search_has_one_span(self) -> None:
        """It is a step of the request that began it; the other request has a link to it."""
        first, second = self.request("first"), self.request("second")
        self.clock.advance(SLOWEST_HEDGE_S)
        self.clock.pump([5, 5])
        (search,) = first.children
        self.assertEqual(("narinfo.search", True), (search.name, search.has_ended))
        self.assertEqual(([], [search]), (first.links, second.links))
        self.assertEqual([], second.children)

    def test_a_hedge_is_an_event_and_a_second_attempt(self) -> None:
        """The attempt that a timer begins belongs to the search, too."""
        root = self.request("first")
        self.clock.advance(SLOWEST_HEDGE_S)
        (search,) = root.children
        self.assertEqual([("hedge", {"ncps.late": "a"})], search.events)
        self.assertEqual(["ask a", "ask b"], [child.name for child in search.children])
        self.clock.pump([5, 5])
