"""Addresses that are bound for several workers."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any
from unittest import mock

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.listening import BACKLOG
from ncps.aio.shared_port import Loads, SharedPort, size_of
from ncps.errors import Refused
from ncps.process import listeners
from ncps.process.listeners import Listener, Listeners, enter

FD = 99


class BoundSocket:
    """A fake of a socket."""

    def __init__(self, family: int, where: tuple[str, int]) -> None:
        self.family = family
        self.where = where
        self.is_open = True

    def fileno(self) -> int:
        return FD

    def getsockname(self) -> tuple[str, int]:
        return self.where

    def close(self) -> None:
        self.is_open = False


def listener(host: str, port: int, backlog: int) -> Listener:
    return Listener(host=host, port=port, backlog=backlog, fd=FD, family=socket.AF_INET)


class ListenersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.bound: list[tuple[str, int]] = []
        self.sockets: list[BoundSocket] = []
        self.taken: dict[str, int] = {}
        self.patch(listeners, "_bound", self.bind)
        self.listeners = Listeners(MemoryReactor())

    def bind(self, host: str, port: int) -> BoundSocket:
        if host in self.taken:
            code = self.taken[host]
            raise CannotListenError(host, port, OSError(code, os.strerror(code)))
        self.bound.append((host, port))
        made = BoundSocket(socket.AF_INET, (host, port or 4711))
        self.sockets.append(made)
        return made

    def open(self, *descriptions: str) -> Deferred[None]:
        return Deferred.fromCoroutine(self.listeners.open(descriptions))

    def test_an_address_is_held_for_the_workers(self) -> None:
        """Workers inherit the socket of an address, which is closed at the end."""
        self.successResultOf(self.open("tcp:80:interface=127.0.0.1"))
        self.assertEqual([("127.0.0.1", 80)], self.bound)
        (made,) = self.sockets
        self.assertTrue(made.is_open)
        self.assertEqual([listener("127.0.0.1", 80, BACKLOG)], self.listeners.opened)
        (port,) = (entrance.port for entrance in self.listeners.entrances)
        self.assertEqual(IPv4Address("TCP", "127.0.0.1", 80), port.getHost())
        port.stopListening()
        self.assertFalse(made.is_open)

    def test_any_port_becomes_one(self) -> None:
        """For port 0 all workers share the port that the kernel chose."""
        self.successResultOf(self.open("tcp:0:backlog=7"))
        self.assertEqual([listener("", 4711, 7)], self.listeners.opened)

    def test_a_taken_address_is_refused_as_ever(self) -> None:
        """The message names the address and the reason."""
        self.taken[""] = errno.EADDRINUSE
        error = str(self.failureResultOf(self.open("tcp:80"), Refused).value)
        self.assertIn("cannot listen on :80: ", error)
        self.assertIn("Address already in use", error)

    def test_an_address_given_twice_is_taken(self) -> None:
        """An address that is given twice is refused, as in a single process."""
        error = str(self.failureResultOf(self.open("tcp:80", "tcp:80"), Refused).value)
        self.assertIn("Address already in use", error)

    def test_a_host_without_ipv6(self) -> None:
        """On a host without IPv6, "all interfaces" means IPv4."""
        self.taken["::"] = errno.EAFNOSUPPORT
        self.successResultOf(self.open(r"tcp:80:interface=\:\:"))
        self.assertEqual(["0.0.0.0"], [each.host for each in self.listeners.opened])

    def test_without_tcp_info_there_are_no_workers(self) -> None:
        """The error names the missing feature."""
        with mock.patch.object(listeners, "socket", object()):
            error = str(self.failureResultOf(self.open("tcp:80"), Refused).value)
        self.assertIn("Linux", error)


class EnterTests(SynchronousTestCase):
    def setUp(self) -> None:
        fd = os.memfd_create("test")
        self.addCleanup(os.close, fd)
        os.truncate(fd, size_of(1))
        self.loads = Loads(fd, 1, 0)
        self.reactor = mock.Mock()
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listening.close)

    def enter(self, listener: Listener) -> SharedPort:
        port = enter(self.reactor, listener, Factory(), self.loads)
        assert isinstance(port, SharedPort)
        self.addCleanup(port.connectionLost, Failure(ConnectionDone()))
        return port

    def test_a_socket_of_tcp_is_shared(self) -> None:
        """A worker duplicates the descriptor of a TCP socket, and never blocks in it."""
        at = self.listening.getsockname()
        given = self.listening.fileno()
        port = self.enter(Listener(host=at[0], port=at[1], fd=given, family=socket.AF_INET))
        self.assertEqual(IPv4Address("TCP", *at), port.getHost())
        self.assertNotEqual(given, port.fileno())
        self.assertFalse(port.socket.getblocking())
        self.reactor.addReader.assert_called_once_with(port)
        self.reactor.wake_by_edges.assert_called_once_with(port)

    def test_a_unix_socket_is_adopted(self) -> None:
        """A UNIX socket has no shares, because the kernel does not give the length of its queue."""
        with socket.socket(socket.AF_UNIX) as given:
            given.bind("\0ncps-test-listeners")
            given.listen()
            port: Any = enter(
                self.reactor,
                Listener(fd=given.fileno(), family=socket.AF_UNIX),
                Factory(),
                self.loads,
            )
            self.addCleanup(port.connectionLost, Failure(ConnectionDone()))
        self.assertNotIsInstance(port, SharedPort)

    def test_an_address_that_fails_is_refused(self) -> None:
        """The error has the message of the kernel."""
        listener = Listener(host="127.0.0.1", port=80, fd=10**6, family=socket.AF_INET)
        error = self.assertRaises(Refused, self.enter, listener)
        self.assertIn("a worker cannot listen on 127.0.0.1:80: Bad file descriptor", str(error))
