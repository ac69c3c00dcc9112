"""Searches: caches that have each other for upstreams, in rings and meshes, without sockets."""

from __future__ import annotations

from itertools import permutations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.tasks import Tasks
from ncps.ask.choose import Upstreams
from ncps.cache.answers import Absent, Outcome
from ncps.cache.narinfo.search import MOMENT_S, Searches, turn
from ncps.errors import NotFound
from ncps.observe.metrics import Metrics
from ncps.peering import trail
from ncps.peering.trail import Trail
from ncps.ports import Upstream
from tests.fakes.leases import MemoryLeases
from tests.fakes.upstream import ScriptedUpstream

UPSTREAM_S = 0.1
"""Seconds that an origin takes for an answer."""

SOON_S = 2.0
"""Seconds within which all must have an answer; a cache waits 6 s for a head."""


class Node(ScriptedUpstream):
    """A cache that searches at its upstreams; it is an upstream itself.

    :ivar has: the narinfo that an origin has; None for caches.
    """

    def __init__(self, clock: Clock, tasks: Tasks, name: str, has: str | None = None) -> None:
        super().__init__(name)
        self.has = has
        self.times = 0
        self.clock = clock
        self.tasks = tasks
        self.searches: Searches[str] = Searches(clock, tasks)
        self.upstreams = Upstreams(clock, tasks, (), Metrics())

    def over(self, *upstreams: Upstream) -> None:
        self.upstreams = Upstreams(self.clock, self.tasks, upstreams, Metrics())

    async def asked_by(self, name: str, digest: str) -> str:
        """Answer another cache, after the millisecond of a network."""
        header = trail.via(name)
        await deferLater(self.clock, 0.001)
        with trail.following(trail.read_via(header, self.name)):
            answering = Deferred.fromCoroutine(self.find(digest))
        try:
            return await answering
        except NotFound as error:
            raise NotFound(str(error), is_certain=error.is_certain) from error

    async def find(self, digest: str) -> str:
        self.times += 1
        if self.has is not None:
            await deferLater(self.clock, UPSTREAM_S)
            if self.has == digest:
                return digest
            raise NotFound("status 404")
        return await self.searches.join(digest, lambda: self._search(digest))

    async def _search(self, digest: str) -> str:
        async def ask(upstream: Upstream) -> str:
            assert isinstance(upstream, Node)
            return await upstream.asked_by(self.name, digest)

        return (await self.upstreams.first(digest, ask)).value


class SearchesCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.tasks = Tasks(self.clock)

    def node(self, name: str, has: str | None = None) -> Node:
        return Node(self.clock, self.tasks, name, has)

    def pass_by(self, seconds: float) -> None:
        self.clock.pump([0.001] * round(seconds * 1000))

    def ask(self, *nodes: Node, digest: str = "x") -> list[Deferred[str]]:
        return [Deferred.fromCoroutine(node.find(digest)) for node in nodes]

    def tearDown(self) -> None:
        self.pass_by(10)
        self.assertEqual(([], []), (self.tasks.names, self.clock.getDelayedCalls()))


class RingTests(SearchesCase):
    def mesh(self, size: int, *homes: int, has: str = "") -> tuple[list[Node], list[Node]]:
        """Make caches that have all others for upstreams; those at `homes` also have an origin."""
        nodes = [self.node(f"ncps-{number:04x}") for number in range(size)]
        origins = []
        for number, node in enumerate(nodes):
            upstreams: list[Upstream] = [other for other in nodes if other is not node]
            if number in homes:
                origins.append(self.node(f"origin{number}", has))
                upstreams.append(origins[-1])
            node.over(*upstreams)
        return nodes, origins

    def ring(self, size: int, *homes: int, has: str = "") -> tuple[list[Node], list[Node]]:
        """Make caches of which each has one other for an upstream."""
        nodes, origins = self.mesh(size, *homes, has=has)
        for number, node in enumerate(nodes):
            others = [c.upstream for c in node.upstreams.candidates if c.upstream in origins]
            node.over(nodes[(number + 1) % size], *others)
        return nodes, origins

    def assert_absent(self, asking: list[Deferred[str]]) -> None:
        for one in asking:
            self.assertFalse(self.failureResultOf(one, NotFound).value.is_certain)

    def test_absent_within_an_upstreams_time(self) -> None:
        """A path that no origin has is 404 at each cache, asked alone or together, in any order."""
        for make, size in ((self.ring, 2), (self.ring, 3), (self.mesh, 3), (self.mesh, 5)):
            for everybody in (False, True):
                nodes, _ = make(size, *range(size))
                asking = self.ask(*(nodes if everybody else nodes[:1]))
                self.pass_by(SOON_S)
                self.assert_absent(asking)

    def test_every_order_of_arrival(self) -> None:
        """Three caches in a mesh are asked shortly after each other."""
        for order in permutations(range(3)):
            for pause in (0.0005, 0.0015, 0.05):
                nodes, _ = self.mesh(3, 0, 1, 2)
                asking = []
                for number in order:
                    asking += self.ask(nodes[number])
                    self.clock.advance(pause)
                self.pass_by(SOON_S)
                self.assert_absent(asking)

    def test_what_one_origin_has_is_found(self) -> None:
        """Any cache may have the origin; one cache is asked, or all at the same time."""
        for make, size in ((self.ring, 2), (self.ring, 4), (self.mesh, 5)):
            for home in range(size):
                for everybody in (False, True):
                    nodes, _ = make(size, home, has="x")
                    asking = self.ask(*(nodes if everybody else nodes[:1]))
                    self.pass_by(SOON_S)
                    self.assertEqual(["x"] * len(asking), [self.successResultOf(a) for a in asking])

    def test_a_search_goes_to_each_cache_once(self) -> None:
        """A mesh of eight causes no flood: each asks its origin once."""
        nodes, origins = self.mesh(8, *range(8))
        asking = self.ask(nodes[0])
        self.pass_by(20 * UPSTREAM_S)
        self.assert_absent(asking)
        self.assertEqual([1] * 8, [origin.times for origin in origins])
        self.assertLessEqual(sum(node.times for node in nodes), 8 * 8)

    def test_question_returns(self) -> None:
        """A question of this cache itself asks no upstream; the answer says why, immediately."""
        [node, _], [origin] = self.ring(2, 0)
        with trail.following(Trail((node.name, "ncps-0001"), has_come_round=True)):
            [asking] = self.ask(node)
        error = self.failureResultOf(asking, Absent).value
        self.assertEqual((Outcome.RING, False), (error.outcome, error.is_certain))
        self.assertEqual(0, origin.times)


class JoiningTests(SearchesCase):
    """Caches in a chain, without a ring."""

    def setUp(self) -> None:
        super().setUp()
        self.inner, self.origin = self.node("ncps-5555"), self.node("origin", "x")
        self.inner.over(self.origin)

    def asking(self, *names: str, question: str = "") -> Deferred[str]:
        with trail.following(Trail(names, question=question)):
            return Deferred.fromCoroutine(self.inner.find("x"))

    def assert_found(self, *asking: Deferred[str], fetches: int) -> None:
        self.pass_by(1)
        self.assertEqual(["x"] * len(asking), [self.successResultOf(one) for one in asking])
        self.assertEqual(fetches, self.origin.times)

    def test_one_fetch(self) -> None:
        """Clients of its own and several caches cause one fetch."""
        first = self.asking("ncps-7777")
        others = [self.asking(), self.asking("ncps-1111"), self.asking("ncps-9999")]
        self.assert_found(first, *others, self.asking("ncps-7777"), fetches=1)

    def test_slow_origin(self) -> None:
        """A cache waits only briefly for a search that may be waiting for it."""
        self.patch(self.origin, "has", None)
        slow = Deferred[None]()

        async def search(_: str) -> str:
            self.origin.times += 1
            await slow
            return "x"

        self.patch(self.origin, "find", search)
        asking = [self.asking("ncps-7777"), self.asking("ncps-9999"), self.asking("ncps-1111")]
        self.pass_by(MOMENT_S + 0.01)
        slow.callback(None)
        self.assert_found(*asking, fetches=2)

    def test_retry_joins_the_search_that_is_running(self) -> None:
        """A cache that gave up and asks again finds its own search."""
        first = self.asking("ncps-7777")
        first.addErrback(lambda _: None)
        self.pass_by(0.05)
        first.cancel()
        self.assert_found(self.asking("ncps-7777"), fetches=1)

    def test_other_way_of_a_question(self) -> None:
        """A second way of a question ends immediately; another question is asked."""
        slow = Deferred[None]()

        async def search(_: str) -> str:
            self.origin.times += 1
            await slow
            return "x"

        self.patch(self.origin, "find", search)
        first = self.asking("ncps-7777", question="1")
        for _ in range(2):
            way = self.asking("ncps-7777", "ncps-8888", question="1")
            self.assertIs(Outcome.RING, self.failureResultOf(way, Absent).value.outcome)
            self.pass_by(3)
        again = self.asking("ncps-7777", "ncps-8888", question="2")
        self.pass_by(MOMENT_S + 0.01)
        slow.callback(None)
        self.assert_found(first, again, fetches=2)


class TurnTests(SearchesCase):
    """Leases among replicas."""

    def entered(self, leases: MemoryLeases, log: list[str]) -> Deferred[None]:
        async def work() -> None:
            async with turn(leases, self.clock, "x"):
                log.append(f"in, {len(leases.held)} held")

        return Deferred.fromCoroutine(work())

    def test_search_of_our_own_holds_the_lease(self) -> None:
        """A search of our own waits for the lease without a limit."""
        leases, log = MemoryLeases("here"), list[str]()
        held = self.successResultOf(Deferred.fromCoroutine(leases.try_hold("x")))
        assert held is not None
        waiting = self.entered(leases, log)
        self.clock.advance(60)
        self.assertEqual([], log)
        self.successResultOf(Deferred.fromCoroutine(held.release()))
        self.successResultOf(waiting)
        self.assertEqual({}, leases.held)

    def test_search_for_another_cache_does_not_wait_for_long(self) -> None:
        """The holder of the lease may be waiting for that search."""
        leases, log = MemoryLeases("here"), list[str]()
        held = self.successResultOf(Deferred.fromCoroutine(leases.try_hold("x")))
        assert held is not None
        with trail.following(Trail(("ncps-7777",))):
            waiting = self.entered(leases, log)
            self.assertEqual([], log)
            self.clock.advance(MOMENT_S)
            self.successResultOf(waiting)
            self.successResultOf(Deferred.fromCoroutine(held.release()))
            self.assertEqual({}, leases.held)
            self.successResultOf(self.entered(leases, log))
        self.assertEqual((["in, 1 held"] * 2, {}), (log, leases.held))
