"""Connections that wait, with fake ports."""

from __future__ import annotations

from twisted.internet import tcp
from twisted.internet.protocol import ServerFactory
from twisted.trial.unittest import SynchronousTestCase

from ncps.settings.schema.server import ServerSettings
from ncps.web.crowd import Crowd
from tests.unit.web.wire import Server


class Port:
    """A fake listening port."""

    def __init__(self) -> None:
        self.is_reading = True

    def stopReading(self) -> None:
        self.is_reading = False

    def startReading(self) -> None:
        self.is_reading = True


class CrowdTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.crowd = Crowd()
        self.ports = [Port(), Port()]
        for port in self.ports:
            self.crowd.add(port)

    @property
    def reading(self) -> list[bool]:
        return [port.is_reading for port in self.ports]

    def test_without_a_limit_no_connection_waits(self) -> None:
        """If all connections fit, the ports are not changed."""
        self.assertFalse(self.crowd.grew(1_000_000))
        self.assertEqual([True, True], self.reading)

    def test_ports_wait_before_the_limit(self) -> None:
        """Connections that a port accepts in the same turn still fit."""
        self.crowd.most = 100
        self.assertFalse(self.crowd.grew(83))
        self.assertTrue(self.crowd.grew(84))
        self.assertFalse(self.crowd.grew(85))
        self.assertEqual([False, False], self.reading)
        self.crowd.shrank(84)
        self.assertEqual([False, False], self.reading)
        self.crowd.shrank(83)
        self.assertEqual([True, True], self.reading)

    def test_ports_that_close_are_left_alone(self) -> None:
        """During a stop, no port accepts again."""
        self.crowd.most = 8
        self.crowd.grew(8)
        self.crowd.leave()
        self.crowd.shrank(0)
        self.assertEqual([False, False], self.reading)

    def test_ports_take_one_connection_in_a_turn(self) -> None:
        """Twisted's own number may be larger than the room."""
        port = tcp.Port(0, ServerFactory())
        self.crowd.most = 8
        self.crowd.add(port)
        port.numberAccepts += 20
        self.assertEqual(1, port.numberAccepts)
        self.assertIsInstance(port, tcp.Port)


class SiteTests(SynchronousTestCase):
    def test_the_site_counts(self) -> None:
        """A full site stops its ports until a connection ends, and counts that."""
        server = Server(ServerSettings(max_connections=1000))
        port = Port()
        server.site.crowd.most = 4
        server.site.crowd.add(port)
        clients = [server.connect() for _ in range(3)]
        self.assertFalse(port.is_reading)
        self.assertEqual(1, server.reached("server-max-connections"))
        clients[0].leave()
        self.assertTrue(port.is_reading)
