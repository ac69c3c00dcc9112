"""Sending times as the kernel tells them; `system.test_recompress` asks a real one."""

from __future__ import annotations

import struct

from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.sending_times import sending_times


class Socket:
    """A socket, and a transport that has it, whose kernel gives `found`."""

    def __init__(self, found: bytes | OSError) -> None:
        self.found = found

    def getHandle(self) -> Socket:
        return self

    def getsockopt(self, _level: int, _name: int, size: int) -> bytes:
        if isinstance(self.found, OSError):
            raise self.found
        return self.found[:size]


class SendingTimesTests(SynchronousTestCase):
    def test_seconds(self) -> None:
        """The two times behind 168 bytes of other facts, also below TLS."""
        found = bytes(168) + struct.pack("3Q", 2_500_000, 500_000, 7)
        self.assertEqual((2.5, 0.5), sending_times(Socket(found)))

        class Tls:
            transport = Socket(found)

        self.assertEqual((2.5, 0.5), sending_times(Tls()))

    def test_others(self) -> None:
        """No times for an old kernel, another socket, or a transport without one."""
        self.assertIsNone(sending_times(Socket(bytes(104))))
        self.assertIsNone(sending_times(Socket(OSError("not supported"))))
        self.assertIsNone(sending_times(StringTransport()))
