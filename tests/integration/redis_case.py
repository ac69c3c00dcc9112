"""Leases in a Redis that a test may end."""

from __future__ import annotations

from pathlib import Path

from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer

from ncps.locks.redis.address import RedisAddress
from tests.integration.lease_case import LeaseCase
from tests.integration.redis_replica import Replica, place_of
from tests.integration.servers.redis import Redis

PREFIX = "ncps:lock:"


class RedisCase(LeaseCase):
    timeout = 60

    def directory(self) -> Path:
        path = Path(self.mktemp())
        path.mkdir()
        return path

    def server(self, *lines: str) -> Redis:
        server = Redis(*lines)
        self.addCleanup(server.close)
        server.start()
        return server

    def replica(self, *places: RedisAddress | Redis, **more: object) -> Replica:
        found = [
            place_of(place.port, timeout_s=0.5) if isinstance(place, Redis) else place
            for place in places
        ]
        replica = Replica(*found, prefix=PREFIX, **more)  # type: ignore[arg-type]
        self.addCleanup(replica.stop)
        return replica

    async def running(self, *places: RedisAddress | Redis, **more: object) -> Replica:
        replica = self.replica(*places, **more)
        await replica.leases.start()
        return replica

    def logged(self, part: str) -> list[str]:
        """Return the lines that are logged from now on and contain a text; the list grows."""
        lines: list[str] = []

        @implementer(ILogObserver)
        def observe(event: LogEvent) -> None:
            text = formatEvent(event)
            if part in text:
                lines.append(text)

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        return lines
