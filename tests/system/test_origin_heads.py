"""The lying origin has the wanted faults of heads, and follows plans."""

from __future__ import annotations

import time

from tests.system.faults import (
    Cut,
    Delay,
    Fault,
    From,
    GarbageBody,
    Hangup,
    Html,
    HugeHeaders,
    NoRanges,
    Only,
    Raw,
    Redirect,
    Request,
    Silence,
    Status,
    Trailing,
    WrongRange,
)
from tests.system.origin_case import BODY, OriginCase


class HeadFaultTests(OriginCase):
    """Faults of the head, or of the whole answer."""

    def test_status_comes_with_its_retry_after(self) -> None:
        """An error status may have Retry-After."""
        _, status, headers = self.get(Status(429, retry_after=7))
        self.assertEqual((429, "7"), (status, headers["Retry-After"]))

    def test_html_is_a_cheerful_200(self) -> None:
        """The captive portal sends 200 and HTML."""
        line, status, headers = self.get(Html())
        self.assertEqual((200, "text/html"), (status, headers["Content-Type"]))
        self.assertIn(b"<html>", line.read(int(headers["Content-Length"])))

    def test_redirect_names_its_place(self) -> None:
        """A redirect has a Location."""
        _, status, headers = self.get(Redirect("../b", 307))
        self.assertEqual((307, "../b"), (status, headers["Location"]))

    def test_ignored_range_is_200(self) -> None:
        """An origin without ranges sends the whole object, whether it advertised ranges or not."""
        for advertised in (True, False):
            _, status, headers = self.get(NoRanges(advertised), headers=("Range: bytes=5-",))
            self.assertEqual((200, str(len(BODY))), (status, headers["Content-Length"]))
            self.assertEqual(advertised, "Accept-Ranges" in headers)

    def test_wrong_range_starts_elsewhere(self) -> None:
        """A wrong range is a 206 from another offset, with a Content-Range that says so."""
        line, status, headers = self.get(WrongRange(), headers=("Range: bytes=5-",))
        self.assertEqual(206, status)
        self.assertTrue(headers["Content-Range"].startswith("bytes 4-"))
        self.assertEqual(BODY[4:], line.read(int(headers["Content-Length"])))

    def test_huge_headers_are_huge(self) -> None:
        """Many large headers come before a good body."""
        _, status, headers = self.get(HugeHeaders(50, 1000))
        self.assertEqual(200, status)
        self.assertGreater(sum(map(len, headers.values())), 50_000)

    def test_silence_lasts(self) -> None:
        """A silent origin reads the request and sends nothing until it is released."""
        self.origin.serve("/a", BODY, Silence())
        line = self.line()
        line.ask("/a")
        self.origin.wait_for_stall("/a")
        line.socket.settimeout(0.1)
        self.assertRaises(TimeoutError, line.read, 1)
        line.socket.settimeout(10)
        self.origin.release()
        self.assertEqual(b"", line.read_all())

    def test_delay_holds_the_head_back(self) -> None:
        """A delayed head comes after the delay."""
        began = time.monotonic()
        _, status, _ = self.get(Delay(0.2))
        self.assertEqual(200, status)
        self.assertGreater(time.monotonic() - began, 0.15)

    def test_hangup_ends_without_an_answer(self) -> None:
        """A hang-up closes or resets the connection without an answer."""
        self.assertRaises(EOFError, self.get, Hangup())
        self.assertRaises(ConnectionResetError, self.get, Hangup(reset=True))

    def test_raw_bytes_replace_the_answer(self) -> None:
        """Raw bytes are sent unchanged."""
        self.origin.serve("/a", BODY, Raw(b"SSH-2.0-what\r\n"))
        line = self.line()
        line.ask("/a")
        self.assertEqual(b"SSH-2.0-what\r\n", line.read_all())

    def test_garbage_follows_a_good_head(self) -> None:
        """Garbage in place of chunks comes after a head that looks right."""
        line, status, headers = self.get(GarbageBody())
        self.assertEqual((200, "chunked"), (status, headers["Transfer-Encoding"]))
        self.assertIn(b"not a chunk", line.read_all())

    def test_trailing_bytes_follow_a_good_answer(self) -> None:
        """The additional bytes come after the body."""
        line, _, _ = self.get(Trailing(b"boo"), headers=("Connection: close",))
        self.assertEqual(BODY + b"boo", line.read_all())


class PlanTests(OriginCase):
    """Plans choose the requests that have a fault."""

    def statuses(self, count: int) -> list[int]:
        statuses = []
        for _ in range(count):
            line = self.line()
            line.ask("/a")
            statuses.append(line.read_head()[0])
        return statuses

    def test_only_the_named_requests_fail(self) -> None:
        """`Only` picks requests by their number, `From` all from one on."""
        self.origin.serve("/a", BODY, Only(Status(503), 2), Only(Status(500), {3, 5}))
        self.assertEqual([200, 503, 500, 200, 500, 200], self.statuses(6))
        self.origin.serve("/a", BODY, From(Status(503), 8))
        self.assertEqual([200, 503, 503], self.statuses(3))

    def test_methods_and_targets_are_counted_apart(self) -> None:
        """The number of a HEAD request does not count for GET."""
        self.origin.serve("/a", BODY, Only(Status(503), 1))
        line = self.line()
        line.ask("/a", method="HEAD")
        self.assertEqual(503, line.read_head()[0])
        self.assertEqual([503, 200], self.statuses(2))

    def test_plan_chooses_by_request(self) -> None:
        """A plan sees the request; the origin's own plan counts for all targets."""

        def plan(request: Request) -> tuple[Fault, ...]:
            return (Status(500 + request.number),)

        self.origin.serve("/a", BODY, plan=plan)
        self.assertEqual([501, 502], self.statuses(2))
        self.origin.serve("/a", BODY)
        self.origin.plan = lambda _request: (Status(418),)
        self.assertEqual([418], self.statuses(1))

    def test_faults_print_as_they_are_written(self) -> None:
        """The text of a fault is its expression, so that a storm can be repeated."""
        fault = Only(Cut(10, reset=True), 3)
        self.assertEqual("Only(fault=Cut(at=10, reset=True), numbers=3)", repr(fault))
        self.assertEqual(fault, eval(repr(fault)))
