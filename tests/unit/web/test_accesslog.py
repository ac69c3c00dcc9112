"""The access log has the same lines as if each request were an event of its own."""

from __future__ import annotations

import json
from io import StringIO
from itertools import product
from select import PIPE_BUF

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from ncps.observe import logs
from ncps.observe.log_lines import painted
from ncps.web.accesslog import AccessLog, Requests
from ncps.web.fast.ledger import Access

RESET = "\x1b[0m"
TEMPLATE = "{method} {path} {status} {bytes} bytes in {duration_ms} ms"
TEXTS = st.text(max_size=20)
ACCESSES = st.builds(
    Access,
    ended=st.floats(0, 2e9),
    route=st.just("/"),
    method=st.one_of(st.just("GET"), TEXTS),
    path=TEXTS,
    status=st.integers(100, 599),
    size=st.integers(0, 2**40),
    elapsed=st.floats(0, 1e5),
    is_complete=st.booleans(),
    cache=st.sampled_from(["", "hit", "miss"]),
    digest=TEXTS,
    upstream=TEXTS,
    client=TEXTS,
    user=TEXTS,
    is_hot=st.booleans(),
    trace_id=TEXTS,
    span_id=TEXTS,
)


def event_of(access: Access, *, human: bool) -> LogEvent:
    """Return the event with the same content as one line of the access log."""
    template = TEMPLATE + " {cache}" if access.cache else TEMPLATE
    digest = {"hash": access.digest}
    if human:
        template += " from {client} as {user}" if access.user else " from {client}"
        template += ", by {upstream}" if access.upstream else ""
        if access.digest in access.path:
            digest = {}
        else:
            template += ", hash {hash}"
        template += " trace={trace_id}" if access.trace_id else ""
    trace = {"trace_id": access.trace_id, "span_id": access.span_id} if access.trace_id else {}
    return {
        "log_level": LogLevel.info,
        "log_namespace": "ncps.web.accesslog",
        "log_time": access.ended,
        "log_format": template,
        "method": access.method,
        "path": access.path,
        "status": access.status,
        "bytes": access.size,
        "duration_ms": round(access.elapsed * 1000, 1),
        "complete": access.is_complete,
        "cache": access.cache,
        **digest,
        "upstream": access.upstream,
        "client": access.client,
        **({"user": access.user} if access.user else {}),
        **trace,
    }


class AccessLogTests(SynchronousTestCase):
    def batch(self, *accesses: Access) -> LogEvent:
        with capturedLogs() as events:
            AccessLog(Clock())(accesses)
        (event,) = events
        # The epoch for a clock that stands at 0, so that both tell the same time.
        event["log_batch"] = type(event["log_batch"])(accesses, 0.0)
        return event

    @given(st.lists(ACCESSES, min_size=1, max_size=3))
    def test_lines_are_those_of_events(self, accesses: list[Access]) -> None:
        """As JSON and for people, byte for byte."""
        for human, worker in product((False, True), (0, 2)):
            alone, together = (
                (stream, logs.observer("info", stream, human=human, prefix="p> ", worker=worker))
                for stream in (StringIO(), StringIO())
            )
            for access in accesses:
                alone[1](event_of(access, human=human))
            together[1](self.batch(*accesses))
            self.assertEqual(together[0].getvalue(), alone[0].getvalue())

    @given(ACCESSES)
    def test_no_value_can_break_a_line(self, access: Access) -> None:
        """Any text of a client stays inside one line of JSON, with all fields."""
        stream = StringIO()
        logs.observer("info", stream, human=False)(self.batch(access))
        self.assertEqual(stream.getvalue().count("\n"), 1)
        found = json.loads(stream.getvalue())
        self.assertEqual((found["path"], found["hash"]), (access.path, access.digest))

    def test_lines_of_many_processes_stay_whole(self) -> None:
        """Several processes write to a pipe in pieces that it accepts as a whole."""

        class Pieces(StringIO):
            def write(self, text: str) -> int:
                pieces.append(text)
                return len(text)

        for human, worker in product((False, True), (0, 2)):
            pieces: list[str] = []
            accesses = [access("/" + "é" * 250) for _ in range(100)]
            logs.observer("info", Pieces(), human=human, worker=worker)(self.batch(*accesses))
            if worker:
                self.assertGreater(len(pieces), 10)
                self.assertLessEqual(max(len(piece.encode()) for piece in pieces), PIPE_BUF)
            else:
                self.assertEqual(len(pieces), 1)
            self.assertEqual({piece[-1] for piece in pieces}, {"\n"})
            self.assertEqual("".join(pieces).count("\n"), 100)

    def test_levels_above_info_have_no_access_log(self) -> None:
        """At level warn the log has no lines of requests."""
        stream = StringIO()
        logs.observer("warn", stream, human=False)(self.batch(access()))
        self.assertEqual(stream.getvalue(), "")

    def test_other_observers_print_the_messages(self) -> None:
        """Only the fields are missing in a log that is not ours."""
        text = formatEvent(self.batch(access(), access(path="/b")))
        told = f"200 3 bytes in 2.0 ms hit from 192.0.2.1, by up, hash {'0' * 32}"
        self.assertEqual(text, f"GET /a {told}\nGET /b {told}")

    def test_people_see_client_upstream_and_hash(self) -> None:
        """A hash in the path is not repeated; no blank ends a line."""
        for path, client, shown in (
            ("/a", "192.0.2.1", f"192.0.2.1, by up, hash {'0' * 32}\n"),
            (f"/{'0' * 32}.narinfo", "192.0.2.1", "192.0.2.1, by up\n"),
        ):
            stream = StringIO()
            logs.observer("info", stream, human=True)(self.batch(access(path, client=client)))
            self.assertTrue(stream.getvalue().endswith(f" hit from {shown}"), stream.getvalue())

    def test_bad_statuses_have_a_colour(self) -> None:
        """Only the number has it; control characters of a client are escaped."""
        for status, code in ((200, ""), (404, "\x1b[33m"), (503, "\x1b[31m")):
            one = access("/\x1b[31m")._replace(status=status)
            line = Requests([one], 0.0).human_lines("", painted)
            self.assertIn(f" {code}{status}{code and RESET} 3 bytes", line)
            self.assertIn(r"GET /\x1b[31m ", line)

    def test_time_is_that_of_the_request(self) -> None:
        """A line that is written later has the time of its request."""
        clock = Clock()
        with capturedLogs() as events:
            AccessLog(clock)([access(ended=-100.0)])
        batch = events[0]["log_batch"]
        self.assertLess(abs(events[0]["log_time"] - batch.offset), 10)


def access(path: str = "/a", ended: float = 0.0, client: str = "192.0.2.1") -> Access:
    """Return a request that has ended."""
    return Access(
        ended=ended,
        route="/",
        method="GET",
        path=path,
        status=200,
        size=3,
        elapsed=0.002,
        is_complete=True,
        cache="hit",
        digest="0" * 32,
        upstream="up",
        client=client,
    )
