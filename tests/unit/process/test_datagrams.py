"""Notices by datagram: busy siblings, too many notices, and invalid ones."""

from __future__ import annotations

import errno
from pathlib import Path

from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Unavailable
from ncps.ports import Notice
from ncps.process.datagrams import GAP, MAX_DATAGRAM, MAX_WAITING, RETRY_S, DatagramNotices
from tests.contract.running import start

ONE, TWO = Path("/run/x/worker-1.notices"), Path("/run/x/worker-2.notices")


class DatagramNoticesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = MemoryReactorClock()
        self.sent: list[tuple[bytes, Path]] = []
        self.full: set[Path] = set()
        self.gone: set[Path] = set()
        self.heard: list[Notice] = []
        self.notices = DatagramNotices(self.clock, Path("/run/x/own"), [ONE, TWO], self.send)
        self.notices.subscribe(self.heard.append)

    def send(self, datagram: bytes, path: Path) -> bool:
        if path in self.gone:
            raise OSError(errno.ECONNREFUSED, "Connection refused")
        if path in self.full:
            return False
        self.sent.append((datagram, path))
        return True

    def publish(self, *names: str) -> None:
        for name in names:
            self.successResultOf(start(self.notices.publish(Notice("narinfo", name))))

    def lines(self, path: Path) -> list[str]:
        return [line for sent, to in self.sent if to == path for line in sent.decode().splitlines()]

    def test_every_sibling_is_told_immediately(self) -> None:
        """Each sibling gets one datagram immediately, and the sender none."""
        self.publish("a")
        self.assertEqual([(b"narinfo a\n", ONE), (b"narinfo a\n", TWO)], self.sent)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_a_busy_sibling_is_told_later(self) -> None:
        """Notices for a busy sibling wait, each once; the other siblings do not wait."""
        self.full.add(ONE)
        self.publish("a", "b", "a")
        self.assertEqual([], self.lines(ONE))
        self.assertEqual(["narinfo a", "narinfo b", "narinfo a"], self.lines(TWO))
        self.clock.advance(RETRY_S)
        self.full.clear()
        self.clock.advance(RETRY_S)
        self.assertEqual(["narinfo a", "narinfo b"], self.lines(ONE))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_too_much_becomes_one_gap(self) -> None:
        """Waiting notices have a limit; beyond it the sibling gets a gap."""
        self.full.add(ONE)
        self.publish(*[str(number) for number in range(MAX_WAITING + 5)])
        self.full.clear()
        self.clock.advance(RETRY_S)
        self.assertEqual(["gap "], self.lines(ONE))
        self.publish("after")
        self.assertEqual(["gap ", "narinfo after"], self.lines(ONE))

    def test_many_go_in_few_datagrams(self) -> None:
        """No datagram is larger than the limit, and no notice is lost."""
        self.full.add(ONE)
        names = [f"{number:032}" for number in range(MAX_WAITING)]
        self.publish(*names)
        self.full.clear()
        self.clock.advance(RETRY_S)
        self.assertEqual([f"narinfo {name}" for name in names], self.lines(ONE))
        sizes = [len(sent) for sent, to in self.sent if to == ONE]
        self.assertLessEqual(max(sizes), MAX_DATAGRAM)
        self.assertLess(len(sizes), 10)

    def test_a_sibling_that_is_gone_costs_nothing(self) -> None:
        """Notices for a dead sibling are dropped, and the other one gets its own."""
        self.gone.add(ONE)
        self.publish("a")
        self.gone.clear()
        self.publish("b")
        self.assertEqual(["narinfo b"], self.lines(ONE))
        self.assertEqual(["narinfo a", "narinfo b"], self.lines(TWO))

    def test_notices_are_passed_on(self) -> None:
        """Subscribers get all notices of a datagram, in order."""
        self.notices.received(b"nar x.nar.xz\nabsent y\ngap \n")
        self.assertEqual([Notice("nar", "x.nar.xz"), Notice("absent", "y"), GAP], self.heard)

    def test_nonsense_is_dropped(self) -> None:
        """Invalid lines are dropped."""
        self.notices.received(b"\xff\xfe\n\nrumour x\nnarinfo a\n")
        self.assertEqual([Notice("narinfo", "a")], self.heard)

    def test_after_the_end_nothing_waits(self) -> None:
        """Closing twice, or with notices that wait, leaves no timer."""
        self.full.add(ONE)
        self.publish("a")
        self.successResultOf(start(self.notices.close()))
        self.successResultOf(start(self.notices.close()))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_without_an_open_socket_nothing_is_sent(self) -> None:
        """Before `open` and after `close` a notice is lost, not an error."""
        notices = DatagramNotices(Clock(), Path("/run/x/own"), [ONE])
        self.successResultOf(start(notices.publish(Notice("narinfo", "a"))))

    def test_a_socket_that_cannot_be_opened_is_an_error(self) -> None:
        """If the socket cannot be opened, the start raises Unavailable."""

        class Deaf(MemoryReactorClock):
            def listenUNIXDatagram(self, *arguments: object) -> None:
                raise CannotListenError(None, "x", OSError(errno.EACCES, "no"))

        notices = DatagramNotices(Deaf(), Path(self.mktemp()), [])
        self.assertRaises(Unavailable, notices.open)
