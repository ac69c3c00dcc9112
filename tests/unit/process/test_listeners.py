"""Addresses taken for several workers."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any
from unittest import mock

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.internet.tcp import makeBinding
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.listening import BACKLOG
from ncps.errors import Refused
from ncps.process import listeners
from ncps.process.listeners import Listener, Listeners, enter


class BoundSocket:
    """A socket in name only."""

    def __init__(self, family: int, where: tuple[str, int]) -> None:
        self.family = family
        self.where = where
        self.is_open = True

    def getsockname(self) -> tuple[str, int]:
        return self.where

    def close(self) -> None:
        self.is_open = False


class DoorsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.bound: list[tuple[str, int, bool]] = []
        self.sockets: list[BoundSocket] = []
        self.taken: dict[str, int] = {}
        self.patch(listeners, "_bound", self.bind)
        self.doors = Listeners(MemoryReactor())

    def bind(self, host: str, port: int, *, share: bool) -> BoundSocket:
        if host in self.taken:
            code = self.taken[host]
            raise CannotListenError(host, port, OSError(code, os.strerror(code)))
        self.bound.append((host, port, share))
        made = BoundSocket(socket.AF_INET, (host, port or 4711))
        self.sockets.append(made)
        return made

    def open(self, *descriptions: str) -> Deferred[None]:
        return Deferred.fromCoroutine(self.doors.open(descriptions))

    def test_an_address_is_looked_at_before_it_is_shared(self) -> None:
        """First alone, so that a foreign process is noticed, then held for the workers."""
        self.successResultOf(self.open("tcp:80:interface=127.0.0.1"))
        self.assertEqual([("127.0.0.1", 80, False), ("127.0.0.1", 80, True)], self.bound)
        self.assertEqual([False, True], [made.is_open for made in self.sockets])
        self.assertEqual([Listener(host="127.0.0.1", port=80, backlog=BACKLOG)], self.doors.doors)
        (port,) = (entrance.port for entrance in self.doors.entrances)
        self.assertEqual(IPv4Address("TCP", "127.0.0.1", 80), port.getHost())
        port.stopListening()
        self.assertFalse(self.sockets[1].is_open)

    def test_any_port_becomes_one(self) -> None:
        """Port 0 is what the kernel made of it, once."""
        self.successResultOf(self.open("tcp:0:backlog=7"))
        self.assertEqual([Listener(host="", port=4711, backlog=7)], self.doors.doors)

    def test_a_taken_address_is_refused_as_ever(self) -> None:
        """The message names it and says why."""
        self.taken[""] = errno.EADDRINUSE
        error = str(self.failureResultOf(self.open("tcp:80"), Refused).value)
        self.assertIn("cannot listen on :80: ", error)
        self.assertIn("Address already in use", error)

    def test_an_address_given_twice_is_taken(self) -> None:
        """As it would be for one process."""
        error = str(self.failureResultOf(self.open("tcp:80", "tcp:80"), Refused).value)
        self.assertIn("Address already in use", error)

    def test_a_host_without_ipv6(self) -> None:
        """Everywhere is IPv4 alone there."""
        self.taken["::"] = errno.EAFNOSUPPORT
        self.successResultOf(self.open(r"tcp:80:interface=\:\:"))
        self.assertEqual(["0.0.0.0"], [door.host for door in self.doors.doors])

    def test_without_reuseport_there_are_no_workers(self) -> None:
        """The error says what would be needed."""
        with mock.patch.object(listeners, "socket", object()):
            error = str(self.failureResultOf(self.open("tcp:80"), Refused).value)
        self.assertIn("Linux", error)


class Listening(MemoryReactor):
    """Notes what is listened at, or fails."""

    error: Exception | None = None

    def listenTCP(self, port: Any, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        if self.error is not None:
            raise self.error
        return super().listenTCP(port, factory, backlog, interface)


class EnterTests(SynchronousTestCase):
    def test_tcp_is_a_socket_of_its_own(self) -> None:
        """Bound so that the others may have the same address."""
        reactor = Listening()
        enter(reactor, Listener(host="::1", port=80, backlog=9), Factory())
        ((binding, _, backlog, interface),) = reactor.tcpServers
        self.assertEqual((9, "::1"), (backlog, interface))
        expected = makeBinding("::1", 80, reuseAddress=True, reusePort=True)
        self.assertEqual(expected, binding)

    def test_what_is_inherited_is_adopted(self) -> None:
        """A descriptor of systemd's is listened at as it is."""
        reactor = mock.Mock()
        factory = Factory()
        enter(reactor, Listener(fd=8, family=socket.AF_INET), factory)
        reactor.adoptStreamPort.assert_called_once_with(8, socket.AF_INET, factory)

    def test_trouble_is_refused(self) -> None:
        """The message of the kernel is passed on."""
        reactor = Listening()
        reactor.error = CannotListenError("", 80, OSError(errno.EACCES, "no"))
        self.assertRaises(Refused, enter, reactor, Listener(port=80), Factory())
