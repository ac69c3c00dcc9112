"""Listening at the address of a string, and the messages of its errors."""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.listening import BACKLOG, listen, shown_address
from ncps.errors import Refused
from ncps.settings.kinds.network import parse_address


class Reactor(MemoryReactor):
    """A reactor whose listening fails as `failing` says, by interface."""

    def __init__(self) -> None:
        super().__init__()
        self.failing: dict[str, Any] = {}

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        if interface in self.failing:
            raise CannotListenError(interface, port, self.failing[interface])
        return super().listenTCP(port, factory, backlog, interface)

    def listenUNIX(self, address: Any, *arguments: Any, **more: Any) -> Any:
        if address in self.failing:
            raise self.failing[address]
        return super().listenUNIX(address, *arguments, **more)


class ListenTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Reactor()

    def listen(self, description: str) -> Deferred[Any]:
        return Deferred.fromCoroutine(listen(self.reactor, description, Factory()))

    def listening(self) -> list[tuple[int, int, str]]:
        return [(port, backlog, where) for port, _, backlog, where in self.reactor.tcpServers]

    def test_tcp_gets_our_backlog_unless_told(self) -> None:
        """Without a backlog in the string ncps sets its own, for bursts of clients."""
        self.successResultOf(self.listen("tcp:8501:interface=127.0.0.1"))
        self.successResultOf(self.listen("tcp:8502:backlog=7"))
        self.assertEqual([(8501, BACKLOG, "127.0.0.1"), (8502, 7, "")], self.listening())

    def test_unix_sockets(self) -> None:
        """Other endpoints are passed on as they are."""
        self.successResultOf(self.listen("unix:/run/x"))
        self.assertEqual("/run/x", self.reactor.unixServers[0][0])

    def test_all_interfaces_without_ipv6_is_ipv4(self) -> None:
        """On a host without IPv6, "all interfaces" means IPv4."""
        for code in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            self.setUp()
            self.reactor.failing["::"] = OSError(code, "no")
            self.successResultOf(self.listen(r"tcp:8501:interface=\:\:"))
            self.assertEqual([(8501, BACKLOG, "0.0.0.0")], self.listening())

    def test_one_ipv6_address_is_not_replaced(self) -> None:
        """A single missing address is an error, also if it is one of IPv6."""
        self.reactor.failing["::1"] = OSError(errno.EADDRNOTAVAIL, "Cannot assign address")
        error = self.failureResultOf(self.listen(r"tcp:8501:interface=\:\:1"), Refused).value
        self.assertIn("Cannot assign address", str(error))
        self.assertEqual([], self.listening())

    def test_taken_port_is_named(self) -> None:
        """The message names the address and the reason."""
        self.reactor.failing[""] = OSError(errno.EADDRINUSE, "Address already in use")
        error = self.failureResultOf(self.listen("tcp:8501"), Refused).value
        self.assertEqual(
            "cannot listen on :8501: Address already in use; stop the program that listens at port"
            " 8501, which may be another ncps (`ss -ltnp sport = :8501` names it), or choose"
            " another port by server-addr",
            str(error),
        )
        self.reactor.failing[""] = "strange"
        self.assertIn("strange", str(self.failureResultOf(self.listen("tcp:1"), Refused).value))

    def why(self, description: str, code: int) -> str:
        """Return the message for an address at which listening fails in this way."""
        for interface in ("", "::", "127.0.0.1"):
            self.reactor.failing[interface] = OSError(code, os.strerror(code))
        return str(self.failureResultOf(self.listen(description), Refused).value)

    def test_ports_that_need_a_right(self) -> None:
        """The message names the needed right; for other ports it gives another reason."""
        needed = "; ports below 1024 need CAP_NET_BIND_SERVICE"
        self.assertEqual(
            "cannot listen on 127.0.0.1:80: Permission denied" + needed,
            self.why("tcp:80:interface=127.0.0.1", errno.EACCES),
        )
        self.assertEqual(
            "cannot listen on 127.0.0.1:8501: Permission denied",
            self.why("tcp:8501:interface=127.0.0.1", errno.EACCES),
        )

    def test_sockets_that_cannot_be_made(self) -> None:
        """The message names the missing or closed directory, and no file that Twisted adds."""
        for error, why in (
            (FileNotFoundError(2, "No such file", "4711", 0, "/a/x.lock"), "/a does not exist"),
            (PermissionError(13, "Permission denied"), "this user may not make a socket in /a"),
            (OSError("AF_UNIX path too long"), "AF_UNIX path too long"),
            (CannotListenError(None, "/a/x", "Cannot acquire lock"), "another process listens"),
            (
                CannotListenError(None, "/a/x", OSError(errno.EADDRINUSE, "Address in use")),
                "Address in use",
            ),
        ):
            self.reactor.failing["/a/x"] = error
            told = str(self.failureResultOf(self.listen("unix:/a/x:mode=660"), Refused).value)
            self.assertTrue(told.startswith("cannot listen on unix:/a/x: "), told)
            self.assertIn(why, told)

    def test_addresses_are_shown_as_they_are_written(self) -> None:
        """The additions for Twisted are removed."""
        for text in (":8501", "127.0.0.1:80", "[::1]:8501", "localhost:0", "unix:/run/x.sock"):
            self.assertEqual(text, shown_address(parse_address(text)))
        for description, text in (
            (r"tcp:port=80:interface=\:\:1:backlog=7", "[::1]:80"),
            ("tcp:80", ":80"),
            (r"unix:address=/run/a\:b:lockfile=0", "unix:/run/a:b"),
            ("systemd:domain=INET:index=0", "systemd:domain=INET:index=0"),
        ):
            self.assertEqual(text, shown_address(description))

    def test_nonsense_is_refused(self) -> None:
        """An invalid endpoint string is an error at the start, without a traceback."""
        for description in (
            "carrier:pigeon",
            "tcp:port",
            "tcp:1:x=y",
            "systemd:domain=INET:index=9",
        ):
            self.failureResultOf(self.listen(description), Refused)
