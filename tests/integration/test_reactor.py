"""The lean reactor does the same as Twisted's own, with less work."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest import skipUnless
from unittest.mock import patch

from twisted.internet import tcp
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python import log
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

if sys.platform == "linux":
    from ncps.aio.epoll import MOST_EVENTS, LeanReactor


class Echo(Protocol):
    """Sends back its input; raises an error at one word."""

    transport: Any
    lost: list[object]

    def dataReceived(self, data: bytes) -> None:
        if data == b"choke":
            raise ZeroDivisionError
        self.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.append(type(reason.value))


@skipUnless(sys.platform == "linux", "epoll")
class LeanReactorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor: Any = LeanReactor()
        self.factory = Factory.forProtocol(Echo)
        self.factory.noisy = False
        self.lost: list[object] = []
        Echo.lost = self.lost
        self.port = self.reactor.listenTCP(0, self.factory, interface="127.0.0.1")

    def tearDown(self) -> None:
        self.port.stopListening()
        self.turn()
        for reader in self.reactor.removeAll():
            reader.connectionLost(Failure(ConnectionDone()))
        self.reactor._poller.close()

    def turn(self) -> None:
        """Run one turn of the reactor."""
        for _ in range(5):
            self.reactor.runUntilCurrent()
            self.reactor.doIteration(0.05)

    def connect(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port.getHost().port))
        client.settimeout(5)
        self.addCleanup(client.close)
        return client

    def test_reads_and_writes(self) -> None:
        """Many connections receive and send bytes."""
        clients = [self.connect() for _ in range(10)]
        for number, client in enumerate(clients):
            client.sendall(b"%d" % number)
        self.turn()
        self.assertEqual([client.recv(9) for client in clients], [b"%d" % n for n in range(10)])

    def test_a_turn_handles_some_of_many_events(self) -> None:
        """Timers come in between, and no connection is left out."""
        clients = [self.connect() for _ in range(3 * MOST_EVENTS)]
        self.turn()
        seen: set[bytes] = set()
        counts: list[int] = []
        with patch.object(Echo, "dataReceived", lambda _, data: seen.add(data)):
            for number, client in enumerate(clients):
                client.sendall(b"%d" % number)
            end = time.monotonic() + 30
            while len(seen) < len(clients) and time.monotonic() < end:
                before = len(seen)
                self.reactor.doIteration(0.05)
                counts.append(len(seen) - before)
        self.assertEqual((len(clients), True), (len(seen), max(counts) <= MOST_EVENTS), counts)

    def test_out_of_memory_ends_a_connection_and_no_listener(self) -> None:
        """A connection with such a fault sends nothing more; others are accepted."""

        def starve(*_: object, **__: object) -> None:
            raise MemoryError

        client = self.connect()
        self.turn()
        with patch.object(log, "err", starve), patch.object(Echo, "dataReceived", starve):
            client.sendall(b"1")
            self.turn()
        self.assertEqual(b"", client.recv(9))
        with patch.object(tcp, "_accept", starve), patch.object(log, "deferr", starve):
            another = self.connect()
            self.turn()
        another.sendall(b"2")
        self.turn()
        self.assertEqual(b"2", another.recv(9))
        self.assertEqual([ConnectionLost], self.lost)
        self.flushLoggedErrors(MemoryError)

    def test_timers_follow_a_monotonic_clock(self) -> None:
        """Seconds count from the start of the machine; the time of day is separate."""
        since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
        late = self.reactor.callLater(600, list)
        self.addCleanup(late.cancel)
        for seconds in (self.reactor.seconds(), late.getTime() - 600):
            self.assertLess(abs(seconds - since_boot), 60)
        self.assertLess(abs(time.time() - self.reactor.wall()), 60)
        called: list[str] = []
        due = self.reactor.callLater(0.01, called.append, "due")
        while due.active():
            self.turn()
        self.assertEqual(["due"], called)

    def test_client_that_leaves_is_noticed(self) -> None:
        """The protocol learns that the client has closed the connection."""
        client = self.connect()
        self.turn()
        client.close()
        self.turn()
        self.assertEqual(self.lost, [ConnectionDone])

    def test_protocol_that_raises_costs_its_own_connection(self) -> None:
        """A fault in one connection is logged, and ends only that one."""
        bad, good = self.connect(), self.connect()
        bad.sendall(b"choke")
        good.sendall(b"fine")
        self.turn()
        self.assertEqual(self.lost, [ZeroDivisionError])
        self.assertEqual(good.recv(9), b"fine")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_connection_that_cannot_even_be_closed_ends_nothing(self) -> None:
        """A protocol that raises an error at its end is logged, too."""

        def refuse(_: object, reason: Failure = connectionDone) -> None:
            raise ZeroDivisionError

        self.patch(Echo, "connectionLost", refuse)
        bad, good = self.connect(), self.connect()
        self.turn()
        bad.close()
        good.sendall(b"fine")
        self.turn()
        self.assertEqual(good.recv(9), b"fine")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_twistd_knows_it(self) -> None:
        """`twistd --reactor=ncps ncps` runs on it."""
        code = (
            "from twisted.application.reactors import installReactor; "
            "print(type(installReactor('ncps')).__name__)"
        )
        root = Path(__file__).parents[2]
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
        )
        self.assertEqual(done.stdout.strip(), "LeanReactor")
