"""Tests of notices through several servers."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Unavailable
from ncps.locks.redis.carrier import LATE_S, Carrier
from ncps.locks.redis.client import NotSent
from tests.contract.running import start
from tests.unit.locks.redis.scripted import backend_of


class CarrierTests(SynchronousTestCase):
    def carry(self, servers: int) -> None:
        """Make a carrier through some servers, and record its lines."""
        self.clock = Clock()
        backend, self.clients = backend_of(self.clock, servers)
        self.nodes = backend._nodes
        self.carrier = Carrier(self.clock, self.nodes)
        self.told: list[str] = []
        self.carrier.on_line(self.told.append, lambda: self.told.append("gap"))

    def receive(self, line: str, *servers: int) -> None:
        for server in servers:
            channels = self.nodes[server].channels
            channels._received(channels.notices.encode(), line.encode())

    def test_a_line_is_passed_on_once(self) -> None:
        """A line is passed on once, without its number."""
        self.carry(3)
        for line in ("x.1 a b c", "x.2 d", "y.1 a b c"):
            self.receive(line, 0, 2, 1)
        self.assertEqual(["a b c", "d", "a b c"], self.told)

    def test_through_one_server(self) -> None:
        """With one server a line has no number."""
        self.carry(1)
        self.receive("a b c", 0, 0)
        self.assertEqual(["a b c"] * 2, self.told)

    def test_garbage(self) -> None:
        """A too long number is not remembered, and a number without a line is ignored."""
        self.carry(3)
        self.receive("x" * 5000 + " a", 0)
        self.receive("", 0)
        self.assertEqual([""], self.told)
        self.assertEqual(1, len(self.carrier._received))

    def test_numbers_are_forgotten(self) -> None:
        """Numbers are forgotten after `LATE_S`."""
        self.carry(3)
        self.receive("x.1 a", 0)
        self.clock.advance(LATE_S)
        self.receive("x.1 a", 1)
        self.assertEqual(["a", "a"], self.told)

    def test_sending(self) -> None:
        """A majority must accept a line; the sender does not wait for the others."""
        self.carry(3)
        for answers, is_sent in (
            ((1, 1, Deferred()), True),
            ((1, NotSent("away"), 1), True),
            ((1, NotSent("away"), NotSent("away")), False),
        ):
            for client, answer in zip(self.clients, answers, strict=True):
                client.answer = answer
            sending = start(self.carrier.send("a"))
            if is_sent:
                self.successResultOf(sending)
            else:
                self.failureResultOf(sending, Unavailable)

    def test_gaps(self) -> None:
        """There is a gap if this process listened to fewer servers than a majority."""
        self.carry(3)
        first, second, third = (node.channels for node in self.nodes)
        away = Unavailable("away")
        first.connected(is_first=True)
        second.connected(is_first=True)
        third.connected(is_first=False)
        first.lost(away)
        first.connected(is_first=False)
        self.assertEqual([], self.told)
        first.lost(away)
        second.lost(away)
        first.connected(is_first=False)
        self.assertEqual(["gap"], self.told)
        second.connected(is_first=False)
        self.assertEqual(["gap"], self.told)
