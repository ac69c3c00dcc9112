"""A listening socket that several processes share; here two reactors take turns."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from typing import Any
from unittest import skipUnless

from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio import shared_port
from ncps.aio.shared_port import Loads, SharedPort, size_of
from tests.waiting import wait_until

if sys.platform == "linux":
    from ncps.aio.epoll import LeanReactor

BURST = 25


class _Client(Protocol):
    """Sends the name of its process, and counts its connection."""

    transport: Any

    def __init__(self, process: _Process) -> None:
        self._process = process

    def connectionMade(self) -> None:
        self._process.count(1)
        self.transport.write(b"%d" % self._process.place)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._process.count(-1)


class _Process:
    """A process: a reactor, and an entry in the loads."""

    def __init__(self, fd: int, place: int, shared: socket.socket, backlog: int | None) -> None:
        self.place = place
        self.connections = 0
        self.reactor: Any = LeanReactor()
        self.loads = Loads(fd, 2, place)
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = lambda addr: _Client(self)  # type: ignore[method-assign]
        copy = socket.fromfd(shared.fileno(), socket.AF_INET, socket.SOCK_STREAM)
        self.port = SharedPort(self.reactor, copy, factory, self.loads, backlog)
        self.port.startListening()

    def count(self, more: int) -> None:
        self.connections += more
        self.loads.tell(self.connections)

    def turn(self) -> None:
        """Run one turn of the reactor."""
        for _ in range(3):
            self.reactor.runUntilCurrent()
            self.reactor.doIteration(0)

    def leave(self) -> None:
        """Stop listening in order."""
        self.port.stopListening()
        self.turn()

    def vanish(self) -> None:
        """End like a killed process: close the descriptors only."""
        for reader in self.reactor.removeAll():
            if reader is self.port:
                reader.socket.close()
            else:
                reader.connectionLost(Failure(ConnectionDone()))
        self.reactor._poller.close()


@skipUnless(sys.platform == "linux", "epoll")
class SharedPortTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.fd = os.memfd_create("test")
        self.addCleanup(os.close, self.fd)
        os.truncate(self.fd, size_of(2))
        self.shared = socket.socket()
        self.shared.bind(("127.0.0.1", 0))
        self.addCleanup(self.shared.close)
        self.patch(shared_port, "PATIENCE_S", 600.0)

    def process(self, place: int, backlog: int | None = 128) -> _Process:
        made = _Process(self.fd, place, self.shared, backlog)
        self.addCleanup(self.end, made)
        made.turn()
        return made

    def end(self, process: _Process) -> None:
        if not process.reactor._poller.closed:
            process.vanish()

    def connect(self, count: int = 1) -> list[socket.socket]:
        found = []
        for _ in range(count):
            client = socket.create_connection(self.shared.getsockname(), 5)
            self.addCleanup(client.close)
            found.append(client)
        return found

    def until(self, done: Callable[[], bool], *processes: _Process) -> None:
        """Give these processes turns until something is true."""

        def is_done() -> bool:
            for process in processes:
                process.turn()
            return done()

        wait_until(is_done, "connections to be taken")

    def until_taken(self, count: int, *processes: _Process) -> None:
        """Give these processes turns until they have `count` connections in total."""
        self.until(lambda: sum(one.connections for one in processes) == count, *processes)

    def test_a_burst_is_divided(self) -> None:
        """Also if one process wakes up long before the other one."""
        first, second = self.process(0), self.process(1)
        self.connect(BURST)
        first.turn()
        self.assertEqual((13, 0), (first.connections, second.connections))
        second.turn()
        self.assertEqual((13, 12), (first.connections, second.connections))

    def test_one_after_the_other(self) -> None:
        """Each goes to the process with fewer, whichever wakes up first."""
        first, second = self.process(0), self.process(1)
        for number in range(1, BURST):
            self.connect()
            self.until_taken(number, first, second)
            self.assertLessEqual(abs(first.connections - second.connections), 1)

    def test_those_that_close_make_room(self) -> None:
        """The process that has lost its clients gets the next ones."""
        first, second = self.process(0), self.process(1)
        clients = self.connect(20)
        self.until_taken(20, first, second)
        for client in clients:
            if client.recv(1) == b"1":
                client.close()
        self.until(lambda: second.connections == 0, second)
        self.connect(10)
        self.until_taken(20, first, second)
        self.assertEqual((10, 10), (first.connections, second.connections))

    def test_more_than_a_turn_takes(self) -> None:
        """The next turns accept the rest."""
        first = self.process(0)
        self.connect(3 * shared_port.MOST_A_TURN)
        self.until(lambda: first.connections == 3 * shared_port.MOST_A_TURN, first)

    def test_a_process_that_stands_still_is_not_waited_for(self) -> None:
        """The other process accepts its clients after a moment."""
        self.patch(shared_port, "PATIENCE_S", 0.01)
        first, second = self.process(0), self.process(1)
        self.connect(BURST)
        self.until(lambda: first.connections == BURST, first)
        self.assertEqual(0, second.connections)

    def test_later_arrivals_do_not_prolong_the_wait(self) -> None:
        """Clients of a blocked process are accepted in time, also while more come."""
        _, second = self.process(0), self.process(1)
        clock = Clock()
        clock.advance(second.reactor.seconds())
        second.reactor.seconds = clock.seconds
        second.loads.tell(50)
        self.connect(3)
        second.turn()
        for _ in range(3):
            self.assertEqual(0, second.connections)
            clock.advance(shared_port.PATIENCE_S / 3)
            self.connect()
            second.turn()
        self.assertEqual(6, second.connections)

    def test_no_client_is_lost_with_a_process(self) -> None:
        """The successor of a killed process accepts the waiting clients."""
        first = self.process(0)
        clients = self.connect(BURST)
        first.vanish()
        successor = self.process(0)
        self.until(lambda: successor.connections == BURST, successor)
        self.assertEqual({b"0"}, {client.recv(1) for client in clients})

    def test_one_that_waits_leaves_all_to_the_others(self) -> None:
        """When it reads again, it gets its share."""
        first, second = self.process(0), self.process(1)
        first.port.stopReading()
        self.connect(10)
        self.until(lambda: second.connections == 10, first, second)
        first.port.startReading()
        self.connect(10)
        self.until_taken(20, first, second)
        self.assertEqual((10, 10), (first.connections, second.connections))

    def test_the_last_one_ends_the_queue(self) -> None:
        """Then clients are refused, not earlier, and a successor may listen again."""
        first, second = self.process(0), self.process(1)
        first.leave()
        self.connect()
        self.until(lambda: second.connections == 1, second)
        second.leave()
        self.assertRaises(ConnectionRefusedError, self.connect)
        successor = self.process(1)
        self.connect()
        self.until(lambda: successor.connections == 1, successor)

    def test_one_that_waits_keeps_the_queue(self) -> None:
        """It has the most clients that it can have, and accepts more when some have left."""
        first, second = self.process(0), self.process(1)
        first.port.stopReading()
        second.leave()
        self.connect()
        first.port.startReading()
        self.until(lambda: first.connections == 1, first)

    def test_a_queue_of_the_service_manager_goes_on(self) -> None:
        """Its clients wait until the manager starts the program again."""
        self.shared.listen()
        self.process(0, backlog=None).leave()
        self.connect()

    def test_a_fault_leaves_no_client_behind(self) -> None:
        """An arrival wakes it once, so it makes up for a turn in which memory ran out."""
        self.patch(shared_port, "PATIENCE_S", 0.01)
        first = self.process(0)
        share = first.loads.share
        first.loads.share = self.starve  # type: ignore[method-assign]
        self.connect()
        first.turn()
        self.assertEqual(1, len(self.flushLoggedErrors(MemoryError)))
        first.loads.share = share  # type: ignore[method-assign]
        self.until(lambda: first.connections == 1, first)

    def starve(self, waiting: int) -> int:
        raise MemoryError
