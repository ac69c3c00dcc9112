"""Leases and notices at three and five real Redis servers with a majority."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from ncps.locks.redis.node import at_once
from tests.contract.leases import SharedLeasesContract
from tests.contract.notices import NoticesContract
from tests.integration.redis_replica import Replica, new_prefix, place_of
from tests.integration.servers import shared


class RedlockContract(SharedLeasesContract, NoticesContract):
    """All promises of one server, with several.

    :cvar away: number of further servers that are away: they close connections immediately.
    """

    timeout = 30
    away = 0

    async def setUp(self) -> None:  # type: ignore[override]
        super().setUp()
        self.servers = shared.redis_servers()
        self.prefix = new_prefix()
        places = [place_of(server.port) for server in self.servers]
        places += [place_of(self.hanging_up()) for _ in range(self.away)]
        # Nothing here may depend on polling: that would take longer than a test may.
        here, there = (
            Replica(*places, prefix=self.prefix, address=address, poll=60)
            for address in (self.address, self.other_address)
        )
        for replica in (here, there):
            self.addCleanup(replica.stop)
        await at_once(replica.leases.start() for replica in (here, there))
        self.leases, self.other = here.leases, there.leases
        self.notices, self.other_notices = here.notices, there.notices

    def hanging_up(self) -> int:
        """Return a port whose server closes each connection."""

        class HangUp(Protocol):
            def connectionMade(self) -> None:
                assert self.transport is not None
                self.transport.loseConnection()

        factory: Any = Factory.forProtocol(HangUp)
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        host: Any = port.getHost()
        return int(host.port)

    def tearDown(self) -> None:
        """Check that only the number is left."""
        for server in self.servers:
            keys = server.say("--scan", "--pattern", f"{self.prefix}*")
            self.assertIn(keys, ("", f"{self.prefix}#fence"))


class ThreeServersTests(RedlockContract, TestCase):
    """All of them work."""


class FiveServersTests(RedlockContract, TestCase):
    """Two of them are away."""

    away = 2
