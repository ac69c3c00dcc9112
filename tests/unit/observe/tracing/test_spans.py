"""The ways in which the current span follows the work."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from contextvars import copy_context

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.race import Race
from ncps.aio.single_flight import SingleFlight
from ncps.aio.tasks import Tasks
from ncps.aio.waiting import sleep, within
from ncps.observe.tracing.spans import NO_SPAN, Span, Step, current, span
from tests.fakes.spans import MemorySpan


class ContextTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.root = MemorySpan("root")

    def test_nothing_is_recorded_without_a_root(self) -> None:
        """Without traces, each step is the same object, and no span begins."""
        with span("a") as step:
            self.assertIs(NO_SPAN, step)
            self.assertIs(NO_SPAN, current())
        self.assertIs(span("a"), span("b"))

    def test_a_coroutine_keeps_its_span_through_its_awaits(self) -> None:
        """Two coroutines that alternate each see their own span."""
        seen: dict[str, list[Span]] = {"a": [], "b": []}

        async def work(name: str) -> None:
            with span(name) as step:
                for _ in range(3):
                    seen[name].append(current())
                    await sleep(self.clock, 1)
                self.assertIs(step, current())

        with Step(self.root, ends=False):
            for name in seen:
                Deferred.fromCoroutine(work(name))
        self.assertIs(NO_SPAN, current())
        self.clock.pump([1] * 3)
        a, b = self.root.children
        self.assertEqual({"a": [a] * 3, "b": [b] * 3}, seen)
        self.assertEqual([True, True], [a.has_ended, b.has_ended])

    def test_a_limit_of_time_keeps_the_span(self) -> None:
        """`within` runs its work in the context of its caller."""

        async def work() -> Span:
            await sleep(self.clock, 1)
            return current()

        with Step(self.root):
            done = Deferred.fromCoroutine(within(self.clock, 5, work()))
        self.clock.advance(1)
        self.assertIs(self.root, self.successResultOf(done))

    def test_a_task_has_the_span_of_its_beginning(self) -> None:
        """A job that outlives its request belongs to its trace."""
        seen: list[Span] = []

        async def job() -> None:
            await sleep(self.clock, 1)
            seen.append(current())

        with Step(self.root):
            Tasks(self.clock).start("job", job())
        self.clock.advance(1)
        self.assertEqual([self.root], seen)

    def test_a_timer_has_none(self) -> None:
        """The reactor calls timers without a span."""
        seen: list[Span] = []
        with Step(self.root):
            self.clock.callLater(1, lambda: seen.append(current()))
        self.clock.advance(1)
        self.assertEqual([NO_SPAN], seen)

    def test_shared_work_has_the_span_of_the_first(self) -> None:
        """The second request keeps its own span."""
        flights: SingleFlight[str, Span] = SingleFlight(Tasks(self.clock), "test")

        async def job() -> Span:
            await sleep(self.clock, 1)
            return current()

        async def ask() -> tuple[Span, Span]:
            return await flights.join("x", job), current()

        other = MemorySpan("other")
        waiting = []
        for root in (self.root, other):
            with Step(root):
                waiting.append(Deferred.fromCoroutine(ask()))
        self.clock.advance(1)
        found = [self.successResultOf(each) for each in waiting]
        self.assertEqual([(self.root, self.root), (self.root, other)], found)

    def test_a_late_attempt_of_a_race_has_the_span_of_the_race(self) -> None:
        """Also if a timer, or another attempt, starts it."""
        seen: list[tuple[str, Span]] = []

        async def attempt(name: str) -> str:
            seen.append((name, current()))
            if name == "outer":
                race.enter("inner", "inner")
            await sleep(self.clock, 9)
            return name

        with Step(self.root):
            race = Race(Tasks(self.clock), attempt, lambda *_: None)
        self.clock.callLater(1, race.enter, "outer", "outer")
        self.clock.advance(1)
        self.assertEqual([("outer", self.root), ("inner", self.root)], seen)
        self.clock.advance(9)

    def test_an_async_generator_has_the_span_of_its_reader(self) -> None:
        """So its span must not be the current one across a `yield`."""
        seen: list[Span] = []

        async def numbers() -> AsyncIterator[int]:
            for number in range(2):
                seen.append(current())
                yield number

        async def read() -> None:
            async with aclosing(numbers()) as found:  # type: ignore[type-var]
                with span("first"):
                    await anext(found)
                with span("second"):
                    await anext(found)

        with Step(self.root):
            Deferred.fromCoroutine(read())
        self.assertEqual(self.root.children, seen)

    def test_an_error_is_noted_and_passed_on(self) -> None:
        """The span ends in any case."""
        error = ValueError("x")

        def work() -> None:
            with Step(self.root):
                raise error

        self.assertIs(error, self.assertRaises(ValueError, work))
        self.assertEqual(([error], True), (self.root.errors, self.root.has_ended))

    def test_the_end_in_another_context_does_no_harm(self) -> None:
        """A garbage collection may end a coroutine in any context."""
        step = Step(self.root)
        copy_context().run(step.__enter__)
        step.__exit__(None, None, None)
        self.assertEqual((True, NO_SPAN), (self.root.has_ended, current()))
