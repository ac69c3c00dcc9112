from __future__ import annotations

import enum
import io
import json
import logging
import re
import sys
import types
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import (
    ILogObserver,
    LogBeginner,
    LogEvent,
    Logger,
    LogLevel,
    LogPublisher,
    globalLogPublisher,
)
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import provider

from ncps.observe import logs
from ncps.observe.standard_library import StandardLibraryBridge


def _failure(message: str = "it broke") -> Failure:
    try:
        raise ValueError(message)
    except ValueError:
        return Failure()


def _event(**fields: object) -> LogEvent:
    return {
        "log_time": 1700000000.1239,
        "log_level": LogLevel.info,
        "log_namespace": "ncps.web",
        "log_format": "handled {path}",
        "path": "/x",
        **fields,
    }


def _json(**fields: object) -> dict[str, Any]:
    line = logs.json_line(_event(**fields))
    pairs = json.loads(line, object_pairs_hook=list)
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names)), line
    assert line.isprintable()
    return dict(pairs)


class _Angry:
    def __repr__(self) -> str:
        raise RuntimeError("no repr for you")


class _Colour(enum.IntEnum):
    RED = 3


class JSONTests(SynchronousTestCase):
    def test_an_event_is_one_object(self) -> None:
        """Time, level, message and namespace come first, then the fields."""
        self.assertEqual(
            list(_json(size=3, ok=True, ratio=0.5, nothing=None, raw=b"a\xff").items()),
            [
                ("time", "2023-11-14T22:13:20.123Z"),
                ("level", "info"),
                ("message", "handled /x"),
                ("logger", "ncps.web"),
                ("path", "/x"),
                ("size", 3),
                ("ok", True),
                ("ratio", 0.5),
                ("nothing", None),
                ("raw", "a\\xff"),
            ],
        )

    def test_values_that_json_does_not_know_are_written_out(self) -> None:
        """Infinity, huge numbers and objects become bounded text."""
        found = _json(inf=float("inf"), huge=10**30, listed=[1], red=_Colour.RED, long="x" * 9999)
        self.assertEqual(found["inf"], "inf")
        self.assertEqual(found["huge"], str(10**30))
        self.assertEqual(found["listed"], "[1]")
        self.assertEqual(found["red"], 3)
        self.assertEqual(len(found["long"]), 4099)
        self.assertIn("_Angry", _json(angry=_Angry())["angry"])

    def test_no_field_takes_the_place_of_another(self) -> None:
        """A field with one of our names gets another name."""
        found = _json(time="t", level="l", message="m", logger="g", error="e")
        self.assertEqual(found["level"], "info")
        self.assertEqual(
            [found[name] for name in ("time_", "level_", "message_", "logger_", "error")],
            ["t", "l", "m", "g", "e"],
        )

    def test_failures_have_their_own_fields(self) -> None:
        """Error and traceback of a failure are fields on the same line."""
        found = _json(log_failure=_failure(), error="mine")
        self.assertEqual(found["error"], "ValueError: it broke")
        self.assertEqual(found["error_"], "mine")
        self.assertIn("test_logs.py", found["traceback"])
        self.assertIn("it broke", _json(log_failure=_failure(), log_format=None)["message"])

    def test_fields_of_old_observers_are_left_out(self) -> None:
        """Fields of Twisted's old log repeat others, so they are removed."""
        found = _json(isError=0, system="-", format="%s", message=("a",))
        self.assertEqual(set(found), {"time", "level", "message", "logger", "path"})
        self.assertEqual(found["message"], "handled /x")

    def test_critical_is_called_fatal(self) -> None:
        """Levels have the names of the settings."""
        self.assertEqual(_json(log_level=LogLevel.critical)["level"], "fatal")
        self.assertEqual(_json(log_level=None)["level"], "info")

    def test_odd_times_do_no_harm(self) -> None:
        """An event without a valid time is still logged."""
        for time in (None, "now", 1e300, float("nan")):
            self.assertEqual(_json(log_time=time)["time"], "1970-01-01T00:00:00.000Z")

    @given(
        st.dictionaries(
            st.text(),
            st.none() | st.text() | st.binary() | st.integers() | st.floats() | st.lists(st.text()),
        )
    )
    def test_any_event_is_one_line(self, fields: dict[str, object]) -> None:
        """No field breaks the line or the object."""
        fields = {name: value for name, value in fields.items() if not name.startswith("log_")}
        self.assertEqual(_json(**fields)["level"], "info")
        self.assertEqual(len(logs.human_line(_event(**fields)).splitlines()), 1)


class HumanTests(SynchronousTestCase):
    def test_people_get_time_level_and_message(self) -> None:
        """One line, with the prefix in front."""
        self.assertRegex(
            logs.human_line(_event(), "ncps: "),
            r"^ncps: 2023-11-1\d \d\d:\d\d:20 INFO  handled /x$",
        )

    def test_client_hash_and_upstream_are_in_the_line(self) -> None:
        """Fields missing in the message follow it; no blank ends a line."""
        line = logs.human_line(_event(client="192.0.2.1", hash="abc", upstream="", size=3))
        self.assertTrue(line.endswith(" handled /x (client 192.0.2.1, hash abc)"), line)
        line = logs.human_line(_event(client="192.0.2.1", path="/of/192.0.2.1"))
        self.assertTrue(line.endswith(" handled /of/192.0.2.1"), line)
        line = logs.human_line(_event(log_format="{client}: gone  ", client="192.0.2.1"))
        self.assertTrue(line.endswith(" 192.0.2.1: gone"), line)

    def test_a_line_cannot_be_forged(self) -> None:
        """Line ends and terminal commands in values are escaped."""
        line = logs.human_line(_event(path="a\nb\x1b[2J\u2028\udc80\x9b"))
        self.assertTrue(line.endswith(r"handled a\nb\x1b[2J\u2028\udc80\x9b"), line)

    def test_tracebacks_are_indented(self) -> None:
        """A traceback follows its line, and its lines do not look like events."""
        first, *rest = logs.human_line(_event(log_failure=_failure("a\n2023-11-14"))).splitlines()
        self.assertIn("handled /x", first)
        self.assertTrue(rest)
        for line in rest:
            self.assertTrue(line.startswith("    "), line)


class RedactionTests(SynchronousTestCase):
    def test_secret_fields_are_stars_in_both_forms(self) -> None:
        """Neither fields with secret names nor messages show their values."""
        names = [
            "authorization",
            "Authorization",
            "password",
            "redis_password",
            "token",
            "get_token",
            "secret",
            "client_secret",
            "secret_key",
            "private_key",
            "signing_key",
            "s3_access_key_id",
            "cookie",
            "credentials",
        ]
        for name in names:
            event = _event(log_format=f"x {{{name}}}", **{name: "hunter2"})
            for line in (logs.json_line(event), logs.human_line(event)):
                self.assertNotIn("hunter2", line)
                self.assertIn("x ***", line)

    def test_other_fields_are_not(self) -> None:
        """A key of the store or a count is no secret."""
        found = _json(key="nar/a", tokenizer="t", public_key="p")
        self.assertEqual(
            (found["key"], found["tokenizer"], found["public_key"]), ("nar/a", "t", "p")
        )


class _Closed(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


class ObserverTests(SynchronousTestCase):
    def lines(self, level: str, *events: LogEvent) -> list[str]:
        stream = io.StringIO()
        observer = logs.observer(level, stream, human=False)
        for event in events:
            observer(event)
        return [json.loads(line)["level"] for line in stream.getvalue().splitlines()]

    def test_levels_filter(self) -> None:
        """Only events of the level and above are written."""
        events = [_event(log_level=level) for level in LogLevel.iterconstants()]
        for level, count in {
            "trace": 5,
            "debug": 5,
            "info": 4,
            "warn": 3,
            "error": 2,
            "fatal": 1,
            "panic": 1,
        }.items():
            self.assertEqual(len(self.lines(level, *events)), count, level)

    def test_steps_of_twisted_are_for_trace(self) -> None:
        """Factories and ports of Twisted do not fill the log; its warnings are kept."""
        noise = [
            _event(log_namespace="twisted.web.server.Site"),
            _event(log_namespace="log_legacy"),
            _event(log_format="Starting factory {factory!r}", log_namespace="ncps.web.site"),
        ]
        for level in ("info", "debug"):
            self.assertEqual(self.lines(level, *noise), [])
        self.assertEqual(self.lines("trace", *noise), ["debug"] * 3)
        loud = _event(log_namespace="twisted.internet", log_level=LogLevel.warn)
        self.assertEqual(self.lines("info", loud), ["warn"])

    def test_nothing_breaks_the_log(self) -> None:
        """A closed stream, and an event that cannot be written, raise no error."""
        logs.observer("info", _Closed(), human=True)(_event())
        closed = io.StringIO()
        closed.close()
        logs.observer("info", closed, human=False)(_event())
        stream = io.StringIO()

        def fail(event: LogEvent) -> str:
            raise RuntimeError

        logs.LineObserver(stream, fail)(_event())
        self.assertIn("unloggable event", json.loads(stream.getvalue())["message"])


class StartTests(SynchronousTestCase):
    def test_earlier_lines_are_not_lost(self) -> None:
        """Earlier events are written when logging starts."""
        publisher = LogPublisher()
        beginner = LogBeginner(
            publisher, io.StringIO(), sys, types.SimpleNamespace(showwarning=None)
        )
        Logger(namespace="early", observer=publisher).info("first")
        stream = io.StringIO()
        logs.start_logging("info", stream, human=False, beginner=beginner)
        Logger(namespace="late", observer=publisher).info("second")
        self.assertEqual(re.findall(r'"message": "(\w+)"', stream.getvalue()), ["first", "second"])

    def test_starting_again_replaces(self) -> None:
        """A second start changes level and stream; no event is written twice."""
        first, second = io.StringIO(), io.StringIO()
        kept = list(logs._current)
        logs._current[:] = [logs.observer("info", first, human=False)]
        globalLogPublisher.addObserver(logs._current[0])
        root = logging.getLogger()
        before = list(root.handlers)
        try:
            logs.start_logging("warn", second, human=False)
            logs.log_warnings(["it has no effect"])
            Logger(namespace="x").info("quiet")
        finally:
            globalLogPublisher.removeObserver(logs._current.pop())
            logs._current[:] = kept
            root.handlers[:] = before
        self.assertEqual(first.getvalue(), "")
        self.assertIn("has no effect", json.loads(second.getvalue())["message"])


class BridgeTests(SynchronousTestCase):
    def emitted(self, emit: Any) -> list[LogEvent]:
        events: list[LogEvent] = []

        @provider(ILogObserver)
        def observe(event: LogEvent) -> None:
            events.append(event)

        library = logging.Logger("boto")
        library.addHandler(StandardLibraryBridge(level=logging.WARNING))
        globalLogPublisher.addObserver(observe)
        try:
            emit(library)
        finally:
            globalLogPublisher.removeObserver(observe)
        return [event for event in events if event["log_namespace"] == "boto"]

    def test_warnings_of_libraries_are_logged(self) -> None:
        """Warnings through `logging` are written, also with braces."""

        def emit(library: logging.Logger) -> None:
            library.info("quiet")
            library.warning("x {y} %d", 3)
            library.error("worse")
            library.critical("worst")
            library.warning("wrong %d", "arguments")

        events = self.emitted(emit)
        self.assertEqual(
            [
                (event["log_level"].name, json.loads(logs.json_line(event))["message"])
                for event in events
            ],
            [
                ("warn", "x {y} 3"),
                ("error", "worse"),
                ("critical", "worst"),
                ("warn", "wrong %d"),
            ],
        )

    def test_exceptions_of_libraries_keep_their_traceback(self) -> None:
        """An exception that a library logs becomes a failure."""

        def emit(library: logging.Logger) -> None:
            try:
                raise ValueError("it broke")
            except ValueError:
                library.exception("while working")

        (event,) = self.emitted(emit)
        self.assertEqual(json.loads(logs.json_line(event))["error"], "ValueError: it broke")
        self.flushLoggedErrors(ValueError)


class WorkerTests(SynchronousTestCase):
    """Lines of several processes."""

    def lines(self, *, human: bool, worker: int) -> str:
        stream = io.StringIO()
        write = logs.observer("info", stream, human=human, prefix="x ", worker=worker)
        write({"log_format": "a {b}", "b": 1, "log_level": LogLevel.info, "log_time": 0.0})
        return stream.getvalue()

    def test_each_line_says_whose_it_is(self) -> None:
        """The worker's number is a field in JSON, or at the front; alone there is none."""
        self.assertEqual(3, json.loads(self.lines(human=False, worker=3))["worker"])
        self.assertTrue(self.lines(human=True, worker=3).startswith("x [3] 1970-"))
        self.assertNotIn("worker", json.loads(self.lines(human=False, worker=0)))
        self.assertTrue(self.lines(human=True, worker=0).startswith("x 1970-"))
