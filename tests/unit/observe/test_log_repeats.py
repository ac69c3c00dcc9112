"""Repeated warnings are counted: the first is written, then a number for each minute."""

from __future__ import annotations

import json
from io import StringIO

from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import provider

from ncps.observe import logs
from ncps.observe.log_repeats import MOST, WINDOW_S, Repeats
from ncps.observe.tracing.spans import NO_SPAN, Span, Step, current
from tests.fakes.spans import MemorySpan


def warning(reason: str = "away", **fields: object) -> LogEvent:
    return {
        "log_level": LogLevel.warn,
        "log_namespace": "ncps.ask",
        "log_format": "upstream {upstream} failed: {reason}",
        "log_time": 1000.0,
        "upstream": "up",
        "reason": reason,
        **fields,
    }


class RepeatsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.events: list[LogEvent] = []

        @provider(ILogObserver)
        def write(event: LogEvent) -> None:
            self.events.append(event)

        self.repeats = Repeats(write, formatEvent, now=self.clock.seconds)

    def texts(self) -> list[str]:
        """Return the texts that were written since the last call."""
        found = [formatEvent(event) for event in self.events]
        self.events.clear()
        return found

    def test_the_number_is_of_no_trace(self) -> None:
        """The line of the number is not part of a running request's trace."""
        root, seen = MemorySpan("root"), list[Span]()

        @provider(ILogObserver)
        def write(_: LogEvent) -> None:
            seen.append(current())

        repeats = Repeats(write, formatEvent, now=self.clock.seconds)
        repeats(warning())
        repeats(warning())
        self.clock.advance(WINDOW_S)
        with Step(root, ends=False):
            repeats(warning("other"))
        self.assertEqual([NO_SPAN, NO_SPAN, root], seen)

    def test_the_first_is_written_and_the_rest_counted(self) -> None:
        """One line now, and one line for each minute with repetitions."""
        for _ in range(58):
            self.repeats(warning())
        self.assertEqual(self.texts(), ["upstream up failed: away"])
        self.clock.advance(WINDOW_S)
        self.repeats.tell()
        (event,) = self.events
        self.assertEqual(
            (event["repeated"], event["repeated_s"], event["upstream"]), (57, 60, "up")
        )
        self.assertEqual((event["log_level"], event["log_time"]), (LogLevel.warn, 1060.0))
        self.assertEqual(self.texts(), ["upstream up failed: away (57 more times in 60 s)"])
        self.repeats(warning())
        self.assertEqual(self.texts(), [])
        self.clock.advance(WINDOW_S)
        self.repeats.tell()
        self.assertEqual([event["log_time"] for event in self.events], [1120.0])
        self.assertEqual(self.texts(), ["upstream up failed: away (once more in 60 s)"])
        self.clock.advance(WINDOW_S)
        self.repeats.tell()
        self.assertEqual(self.texts(), [])
        self.repeats(warning())
        self.assertEqual(self.texts(), ["upstream up failed: away"])

    def test_without_a_ticker_the_next_warning_tells(self) -> None:
        """A process without a ticker loses no number."""
        self.repeats(warning())
        self.repeats(warning())
        self.clock.advance(WINDOW_S)
        self.repeats(warning("late"))
        self.assertEqual(
            self.texts(),
            [
                "upstream up failed: away",
                "upstream up failed: away (once more in 60 s)",
                "upstream up failed: late",
            ],
        )

    def test_other_texts_and_levels_are_others(self) -> None:
        """Only equal events are counted; lines of level info never are."""
        for event in (
            warning(),
            warning("late"),
            warning(log_level=LogLevel.error),
            warning(log_namespace="ncps.web"),
            warning(log_failure=Failure(ValueError("a"))),
            warning(log_failure=Failure(ValueError("b"))),
            *[warning(log_level=LogLevel.info, log_namespace="other")] * 2,
            *[warning(log_level=LogLevel.critical)] * 2,
        ):
            self.repeats(event)
        self.assertEqual(len(self.events), 10)
        self.repeats(warning(log_failure=Failure(ValueError("b"))))
        self.assertEqual(len(self.events), 10)

    def test_a_change_for_the_better_ends_the_counting(self) -> None:
        """Away, well and away again gives three lines."""
        back = warning(log_level=LogLevel.info, log_format="upstream {upstream} answers again")
        for event in (warning(), warning(), {**back, "log_namespace": "x"}, back, warning()):
            self.repeats(event)
        self.assertEqual(
            self.texts(),
            [
                "upstream up failed: away",
                "upstream up answers again",
                "upstream up failed: away (once more in 1 s)",
                "upstream up answers again",
                "upstream up failed: away",
            ],
        )

    def test_an_answer_to_the_operator_is_always_written(self) -> None:
        """A repeated command gets its answer again."""
        for _ in range(2):
            self.repeats(warning(log_always=True))
        self.assertEqual(len(self.events), 2)

    def test_the_memory_is_bounded(self) -> None:
        """The oldest text is dropped, and its number is written."""
        self.repeats(warning("first"))
        self.repeats(warning("first"))
        for number in range(MOST):
            self.repeats(warning(str(number)))
        self.assertEqual(len(self.events), MOST + 2)
        self.assertIn("upstream up failed: first (once more in 1 s)", self.texts())
        self.assertEqual(len(self.repeats._seen), MOST)

    def test_the_end_tells_all(self) -> None:
        """The end of the process writes all numbers."""
        self.repeats(warning())
        self.repeats(warning(thing=object(), long="x" * 10_000))
        self.texts()
        self.repeats.tell(all_=True)
        self.assertEqual(self.texts(), ["upstream up failed: away (once more in 1 s)"])
        self.repeats.tell(all_=True)
        self.assertEqual(self.texts(), [])

    def test_json_keeps_the_fields(self) -> None:
        """The line of the number has the same fields."""
        stream = StringIO()
        observer = logs.observer("info", stream, human=False)
        for _ in range(3):
            observer(warning())
        logs.tell_repeats(all_=True)
        first, number = map(json.loads, stream.getvalue().splitlines())
        self.assertNotIn("repeated", first)
        for name in ("level", "logger", "upstream", "reason"):
            self.assertEqual(number[name], first[name])
        self.assertEqual(number["repeated"], 2)
