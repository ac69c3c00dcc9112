"""The supervisor: starts, replacements, pauses and ends, with fake processes."""

from __future__ import annotations

from attrs import Factory, define
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Unavailable
from ncps.process.supervisor import (
    ABORT_S,
    GOOD_LIFE_S,
    LONGEST_PAUSE_S,
    START_S,
    Supervisor,
    Watch,
)


@define
class Child:
    """The fake of a process.

    :ivar is_stubborn: whether it ignores TERM.
    """

    number: int
    life: int
    watch: Watch
    pid: int = 1
    is_stubborn: bool = False
    is_alive: bool = True
    signals: list[str] = Factory(list)

    def signal(self, name: str) -> None:
        self.signals.append(name)
        if self.is_alive and (name == "KILL" or not self.is_stubborn):
            self.end(f"signal {name}")

    def give(self, settings: bytes) -> None:
        self.signals.append(settings.decode())

    def cut(self) -> None:
        self.signals.append("cut")

    def end(self, how: str = "exit code 1", why: str = "") -> None:
        self.is_alive = False
        self.watch.ended(how, why)


class Stage(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.children: list[Child] = []
        self.fails: OSError | None = None
        self.supervisor = Supervisor(self.clock, 3, self.spawn)

    def spawn(self, number: int, life: int, watch: Watch) -> Child:
        if self.fails is not None:
            raise self.fails
        child = Child(number, life, watch)
        self.children.append(child)
        return child

    def start(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.supervisor.start())

    def stop(self, deadline_s: float = 30.0) -> Deferred[None]:
        return Deferred.fromCoroutine(self.supervisor.stop(deadline_s))

    def serve(self) -> None:
        """Start all workers and make all serve."""
        started = self.start()
        for child in self.children:
            child.watch.ready()
        self.successResultOf(started)

    def lives(self) -> list[tuple[int, int]]:
        """Return the started workers, each with the number of its life."""
        return [(child.number, child.life) for child in self.children]

    def pause(self) -> float:
        """Return the seconds until the next start; fail if none is planned."""
        before = len(self.children)
        alive = sum(child.is_alive for child in self.children)
        self.assertEqual(2, alive)
        soonest = min(call.getTime() for call in self.clock.getDelayedCalls())
        pause = soonest - self.clock.seconds()
        self.clock.advance(pause)
        self.assertEqual(before + 1, len(self.children))
        return float(pause)


class SupervisorTests(Stage):
    def test_the_start_is_over_when_all_serve(self) -> None:
        """All workers start at the same time; the last ready one completes the start."""
        started = self.start()
        self.assertEqual([(1, 1), (2, 1), (3, 1)], self.lives())
        for child in self.children:
            self.assertNoResult(started)
            child.watch.ready()
        self.successResultOf(started)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_a_worker_that_cannot_serve_fails_the_start(self) -> None:
        """The error names the worker and its end; the others are ended, none is replaced."""
        started = self.start()
        self.children[0].watch.ready()
        self.children[1].end("exit code 1")
        error = self.failureResultOf(started, Unavailable).value
        self.assertEqual("worker 2 ended before it could serve, with exit code 1", str(error))
        self.children[0].end()
        self.assertTrue(self.supervisor.has_failed)
        self.successResultOf(self.stop())
        self.assertEqual(["TERM"], self.children[2].signals)
        self.assertEqual(3, len(self.children))

    def test_a_workers_own_message_is_the_error(self) -> None:
        """A worker's own message becomes the error of the start."""
        started = self.start()
        self.children[1].end("exit code 1", "no key")
        self.children[0].end("exit code 1", "no key either")
        self.assertEqual("no key", str(self.failureResultOf(started, Unavailable).value))
        self.successResultOf(self.stop())

    def test_a_worker_that_does_not_begin_is_killed(self) -> None:
        """A worker that does not serve in time is killed."""
        started = self.start()
        self.children[0].watch.ready()
        self.children[2].watch.ready()
        self.clock.advance(START_S)
        self.failureResultOf(started, Unavailable)
        self.assertEqual(["KILL"], self.children[1].signals)
        self.assertEqual([], self.children[0].signals)

    def test_no_process_at_all_fails_the_start(self) -> None:
        """The error has the message of the kernel."""
        self.fails = OSError(11, "Resource temporarily unavailable")
        error = self.failureResultOf(self.start(), Unavailable).value
        self.assertIn("Resource temporarily unavailable", str(error))
        self.successResultOf(self.stop())

    def test_an_ended_worker_is_replaced_immediately(self) -> None:
        """After the first end a worker is replaced without a pause."""
        self.serve()
        self.children[1].end("signal KILL")
        self.assertEqual(0.0, self.pause())
        self.assertEqual((2, 2), self.lives()[-1])
        self.assertEqual([[], [], []], [child.signals for child in self.children[:3]])

    def test_pauses_grow_after_short_lives(self) -> None:
        """Each short life doubles the pause, up to a limit, even if the worker served."""
        self.serve()
        pauses = []
        for _ in range(8):
            self.children[-1].end()
            pauses.append(self.pause())
            self.children[-1].watch.ready()
        self.assertEqual([0.0, 1.0, 2.0, 4.0, 8.0, 16.0, LONGEST_PAUSE_S, LONGEST_PAUSE_S], pauses)

    def test_a_long_life_ends_the_pauses(self) -> None:
        """After a long life a worker is replaced without a pause."""
        self.serve()
        for _ in range(3):
            self.children[-1].end()
            self.pause()
        self.children[-1].watch.ready()
        self.clock.advance(GOOD_LIFE_S)
        self.children[-1].end()
        self.assertEqual(0.0, self.pause())

    def test_a_start_that_fails_later_is_tried_again(self) -> None:
        """If a replacement cannot be started, it is tried again later."""
        self.serve()
        self.fails = OSError(12, "Cannot allocate memory")
        self.children[0].end()
        self.clock.advance(0)
        self.assertEqual(2, self.supervisor.running)
        self.fails = None
        self.assertEqual(1.0, self.pause())
        self.assertEqual(3, self.supervisor.running)

    def test_all_are_told_to_end(self) -> None:
        """The stop ends when the last worker has ended; none is replaced."""
        self.serve()
        for child in self.children:
            child.is_stubborn = True
        stopped = self.stop()
        for child in self.children:
            self.assertEqual(["TERM"], child.signals)
            self.assertNoResult(stopped)
            child.end("exit code 0")
        self.successResultOf(stopped)
        self.assertEqual(3, len(self.children))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_a_stubborn_worker_is_killed_at_the_deadline(self) -> None:
        """A worker that ignores the stop is killed at the deadline."""
        self.serve()
        self.children[2].is_stubborn = True
        stopped = self.stop(30.0)
        self.clock.advance(29.9)
        self.assertNoResult(stopped)
        self.clock.advance(0.1)
        self.successResultOf(stopped)
        self.assertEqual(["TERM", "KILL"], self.children[2].signals)

    def test_a_cut_reaches_all_that_are_left(self) -> None:
        """Workers are ordered to cut their work; one that does not end is killed."""
        self.serve()
        for child in self.children[1:]:
            child.is_stubborn = True
        stopped = self.stop(30.0)
        self.supervisor.cut(6.0)
        self.assertEqual(
            [["TERM"], ["TERM", "cut"], ["TERM", "cut"]],
            [child.signals for child in self.children],
        )
        self.children[1].end("exit code 0")
        self.clock.advance(5.9)
        self.assertNoResult(stopped)
        self.clock.advance(0.1)
        self.successResultOf(stopped)
        self.assertEqual(["TERM", "cut", "KILL"], self.children[2].signals)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_a_stop_in_the_middle_of_the_start(self) -> None:
        """A stop during the start ends all workers."""
        started = self.start()
        self.children[0].watch.ready()
        self.successResultOf(self.stop())
        self.successResultOf(started)
        self.assertFalse(self.supervisor.has_failed)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_a_stop_during_a_pause(self) -> None:
        """A stop cancels a planned replacement."""
        self.serve()
        self.children[0].end()
        self.successResultOf(self.stop())
        self.clock.advance(LONGEST_PAUSE_S)
        self.assertEqual(3, len(self.children))


class ReloadTests(Stage):
    """Workers that get other settings."""

    def test_each_worker_takes_them(self) -> None:
        """Each worker gives a result, except one that ends: its successor has the settings."""
        self.serve()
        given = self.supervisor.give(b"settings")
        self.assertEqual([["settings"]] * 3, [child.signals for child in self.children])
        self.children[0].watch.took(["a line"])
        self.children[1].end("signal 9")
        self.assertEqual([True, True, False], [taking.is_set for taking in given.values()])
        taken = Deferred.fromCoroutine(given[1].wait())
        self.assertEqual(["a line"], self.successResultOf(taken))


class StallTests(Stage):
    """Workers whose reactor hangs."""

    def test_a_stalled_worker_is_replaced(self) -> None:
        """A stalled worker is aborted, and writes its stack; a worker with a pulse continues."""
        self.serve()
        self.clock.advance(20.0)
        for child in self.children[1:]:
            child.watch.pulse()
        self.clock.advance(10.0)
        self.supervisor.end_stalled(30.0)
        self.assertEqual([["ABRT"], [], []], [child.signals for child in self.children])
        self.clock.advance(0.0)
        self.assertEqual((1, 2), self.lives()[3])

    def test_one_that_does_not_even_abort_is_killed(self) -> None:
        """A process that ignores the abort is killed."""
        self.serve()
        self.children[0].is_stubborn = True
        self.clock.advance(30.0)
        for child in self.children[1:]:
            child.watch.pulse()
        for _ in range(2):
            self.supervisor.end_stalled(30.0)
        self.assertEqual(["ABRT"], self.children[0].signals)
        self.assertEqual(2, self.supervisor.serving)
        self.clock.advance(ABORT_S)
        self.assertEqual(["ABRT", "KILL"], self.children[0].signals)

    def test_one_that_starts_is_left_alone(self) -> None:
        """A worker that starts gives no pulse, and has another deadline."""
        self.start()
        self.clock.advance(60.0)
        self.supervisor.end_stalled(30.0)
        self.assertEqual([[], [], []], [child.signals for child in self.children])
