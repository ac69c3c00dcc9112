"""Tests of notices as lines of text."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Unavailable
from ncps.locks.notices import LONGEST_NAME, MOST_UNSENT, SharedNotices, pack, unpack
from ncps.ports import Notice
from tests.contract.running import start


class SharedNoticesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.sent: list[str] = []
        self.heard: list[Notice] = []
        self.gate: Deferred[None] | None = None
        self.notices = SharedNotices(self.send)
        self.notices.subscribe(self.heard.append)

    async def send(self, text: str) -> None:
        if self.gate is not None:
            await self.gate
        self.sent.append(text)

    def test_lines_are_read_as_they_were_written(self) -> None:
        """Lines are read as they were written, except this process's own."""
        notice = Notice("nar", "x.nar.xz")
        self.assertEqual(unpack("b", pack("a", notice)), notice)
        self.assertIsNone(unpack("a", pack("a", notice)))
        self.successResultOf(start(self.notices.publish(notice)))
        self.notices.received(self.sent[0])
        self.assertEqual(self.heard, [])

    def test_invalid_lines_are_dropped(self) -> None:
        """Invalid lines, unknown kinds, gaps, and too long names are dropped."""
        for text in ("", "a", "a future x", "a gap ", f"a nar {'x' * 5000}"):
            self.notices.received(text)
        self.assertEqual(self.heard, [])
        self.notices.received("a absent x y")
        self.assertEqual(self.heard, [Notice("absent", "x y")])

    def test_a_notice_that_cannot_be_sent(self) -> None:
        """A notice that cannot be sent raises no error."""

        async def fail(_text: str) -> None:
            raise Unavailable("away")

        self.successResultOf(start(SharedNotices(fail).publish(Notice("nar", "x"))))

    def test_bounds(self) -> None:
        """Names have a longest length, and waiting notices a limit."""
        for notice in (Notice("gap"), Notice("nar", "x" * (LONGEST_NAME + 1))):
            self.successResultOf(start(self.notices.publish(notice)))
        self.assertEqual(self.sent, [])
        gate: Deferred[None] = Deferred()
        self.gate = gate
        for _ in range(MOST_UNSENT + 50):
            start(self.notices.publish(Notice("nar", "x")))
        gate.callback(None)
        self.assertEqual(len(self.sent), MOST_UNSENT)
        self.gate = None
        self.successResultOf(start(self.notices.publish(Notice("nar", "x"))))
        self.assertEqual(len(self.sent), MOST_UNSENT + 1)

    def test_a_gap(self) -> None:
        """Subscribers get a gap."""
        self.notices.missed()
        self.assertEqual(self.heard, [Notice("gap")])
