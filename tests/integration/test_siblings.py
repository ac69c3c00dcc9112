"""Workers of one machine reach each other over real sockets."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from ncps.aio.listening import inherited
from ncps.assembly.siblings import SiblingClient
from ncps.errors import Unavailable
from ncps.ports import Notice
from ncps.process.datagrams import MAX_WAITING, DatagramNotices
from tests.contract.notices import NoticesContract, Subscriber
from tests.contract.running import Contract, start

reactor = cast("Any", _reactor)


class SocketsTestCase(Contract, TestCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="ncps-"))
        self.addCleanup(shutil.rmtree, self.directory)


class DatagramNoticesTests(NoticesContract, SocketsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.notices, self.other_notices = self.opened(1, 2), self.opened(2, 1)

    def opened(self, own: int, other: int) -> DatagramNotices:
        paths = [self.directory / str(number) for number in (own, other)]
        notices = DatagramNotices(reactor, paths[0], paths[1:])
        notices.open()
        self.addCleanup(lambda: start(notices.close()))
        return notices

    async def test_a_burst_arrives(self) -> None:
        """More than the kernel's queue takes at once reaches a sibling all the same."""
        there = Subscriber()
        self.other_notices.subscribe(there)
        sent = [Notice("narinfo", f"{number:032}") for number in range(MAX_WAITING)]
        for notice in sent:
            await self.notices.publish(notice)
        await there.receives(sent[-1])
        self.assertEqual(there.received, sent)

    async def test_a_successor_replaces_a_killed_process(self) -> None:
        """A new worker replaces the socket of a killed one; notices lost meanwhile do no harm."""
        dead = self.directory / "3"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as corpse:
            corpse.bind(str(dead))
        teller = DatagramNotices(reactor, self.directory / "4", [dead])
        teller.open()
        self.addCleanup(lambda: start(teller.close()))
        await teller.publish(Notice("narinfo", "lost"))
        successor = self.opened(3, 4)
        self.assertEqual(0o600, dead.stat().st_mode & 0o777)
        there = Subscriber()
        successor.subscribe(there)
        await teller.publish(Notice("narinfo", "a"))
        await there.receives(Notice("narinfo", "a"))
        self.assertEqual(there.received, [Notice("narinfo", "a")])


class _Answer(Resource):
    isLeaf = True  # noqa: N815 - Twisted's name

    def render_GET(self, request: Any) -> bytes:
        if request.path == b"/missing":
            request.setResponseCode(404)
        return b"x" * 100_000


class AskTests(SocketsTestCase):
    def asked(self, path: Path, target: str = "/figures", deadline_s: float = 10.0) -> Any:
        client = SiblingClient(reactor, path, deadline_s)
        self.addCleanup(lambda: start(client.close()))
        return client.ask(target)

    async def test_the_body_is_returned(self) -> None:
        """The result of a 200 is its body; anything else is an error."""
        path = self.directory / "s"
        port = reactor.listenUNIX(str(path), Site(_Answer()))
        self.addCleanup(port.stopListening)
        self.assertEqual(b"x" * 100_000, await self.asked(path))
        await self.assert_raises(Unavailable, self.asked(path, "/missing"))

    async def test_no_sibling_there_is_reported_immediately(self) -> None:
        """A missing socket, or one without a listener, is an immediate error."""
        dead = self.directory / "dead"
        with socket.socket(socket.AF_UNIX) as corpse:
            corpse.bind(str(dead))
        for path in (self.directory / "none", dead):
            error = await self.assert_raises(Unavailable, self.asked(path, deadline_s=60.0))
            self.assertFalse(error.timed_out)

    async def test_a_sibling_that_hangs_costs_the_deadline(self) -> None:
        """A socket whose process accepts nothing is given up."""
        path = self.directory / "hangs"
        with socket.socket(socket.AF_UNIX) as hanging:
            hanging.bind(str(path))
            hanging.listen()
            error = await self.assert_raises(Unavailable, self.asked(path, deadline_s=0.1))
        self.assertTrue(error.timed_out)


class _Greeting(Protocol):
    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"hello")
        self.transport.loseConnection()


class InheritedTests(SocketsTestCase):
    async def test_a_unix_socket_is_left_as_it_was(self) -> None:
        """Name, mode and the socket itself survive a port that listened at it."""
        path = self.directory / "s"
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
            path.chmod(0o600)
            made.listen()
            made.setblocking(False)
            for _ in range(2):
                factory = Factory.forProtocol(_Greeting)
                factory.noisy = False
                port = inherited(reactor, made.fileno(), socket.AF_UNIX, factory)
                self.assertEqual(b"hello", await deferToThread(received, path))
                await maybeDeferred(port.stopListening)
            self.assertEqual(0o600, path.stat().st_mode & 0o777)
            os.fstat(made.fileno())


def received(path: Path) -> bytes:
    """Connect and read until the end."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(path))
        found = b""
        while more := client.recv(100):
            found += more
        return found
