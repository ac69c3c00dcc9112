"""Listening where a string says, and the error that says why not."""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase

from ncps.endpoints import BACKLOG, listen
from ncps.errors import Refused


class Reactor(MemoryReactor):
    """Listens on what it has: `failing` says what goes wrong, by interface."""

    def __init__(self) -> None:
        super().__init__()
        self.failing: dict[str, Any] = {}

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        if interface in self.failing:
            raise CannotListenError(interface, port, self.failing[interface])
        return super().listenTCP(port, factory, backlog, interface)


class ListenTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Reactor()

    def listen(self, description: str) -> Deferred[Any]:
        return Deferred.fromCoroutine(listen(self.reactor, description, Factory()))

    def listening(self) -> list[tuple[int, int, str]]:
        return [(port, backlog, where) for port, _, backlog, where in self.reactor.tcpServers]

    def test_tcp_gets_our_backlog_unless_told(self) -> None:
        """A burst of clients finds room to wait."""
        self.successResultOf(self.listen("tcp:8501:interface=127.0.0.1"))
        self.successResultOf(self.listen("tcp:8502:backlog=7"))
        self.assertEqual([(8501, BACKLOG, "127.0.0.1"), (8502, 7, "")], self.listening())

    def test_unix_sockets(self) -> None:
        """Other endpoints are passed on as they are."""
        self.successResultOf(self.listen("unix:/run/x"))
        self.assertEqual("/run/x", self.reactor.unixServers[0][0])

    def test_all_interfaces_without_ipv6_is_ipv4(self) -> None:
        """On a host without IPv6 "everywhere" is IPv4 alone."""
        for code in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            self.setUp()
            self.reactor.failing["::"] = OSError(code, "no")
            self.successResultOf(self.listen(r"tcp:8501:interface=\:\:"))
            self.assertEqual([(8501, BACKLOG, "0.0.0.0")], self.listening())

    def test_one_ipv6_address_is_not_replaced(self) -> None:
        """A single address that is not there is an error, whatever it looks like."""
        self.reactor.failing["::1"] = OSError(errno.EADDRNOTAVAIL, "Cannot assign address")
        error = self.failureResultOf(self.listen(r"tcp:8501:interface=\:\:1"), Refused).value
        self.assertIn("Cannot assign address", str(error))
        self.assertEqual([], self.listening())

    def test_taken_port_is_named(self) -> None:
        """The message says what could not be had, and why."""
        self.reactor.failing[""] = OSError(errno.EADDRINUSE, "Address already in use")
        error = self.failureResultOf(self.listen("tcp:8501"), Refused).value
        self.assertIn("tcp:8501", str(error))
        self.assertIn("Address already in use", str(error))
        self.reactor.failing[""] = "strange"
        self.assertIn("strange", str(self.failureResultOf(self.listen("tcp:1"), Refused).value))

    def test_nonsense_is_refused(self) -> None:
        """A string that is no endpoint is a start-up error, not a traceback."""
        for description in (
            "carrier:pigeon",
            "tcp:port",
            "tcp:1:x=y",
            "systemd:domain=INET:index=9",
        ):
            self.failureResultOf(self.listen(description), Refused)
