"""What one process has of Redis, for tests."""

from __future__ import annotations

from uuid import uuid4

from twisted.internet import reactor

from ncps.aio.backoff import Backoff
from ncps.locks.degraded import DegradedGrants
from ncps.locks.redis.address import RedisAddress
from ncps.locks.redis.channels import RedisChannels, redis_notices
from ncps.locks.redis.locks import RedisBackend
from ncps.locks.shared import SharedLeases


class Replica:
    """Leases and notices on connections of their own."""

    def __init__(
        self,
        place: RedisAddress,
        prefix: str,
        *,
        address: str = "",
        ttl: float = 15.0,
        poll: float = 0.05,
        may_degrade: bool = False,
    ) -> None:
        self.channels = RedisChannels(reactor, place, prefix=prefix)
        self.backend = RedisBackend(
            reactor,
            self.channels,
            ttl_of=lambda _name: ttl,
            address=address,
        )
        self.notices = redis_notices(self.backend.client, self.channels)
        self.observed: list[tuple[str, float]] = []
        self.leases = SharedLeases(
            reactor,
            self.backend,
            polls=Backoff(first_s=poll, longest_s=poll),
            observe=lambda what, seconds: self.observed.append((what, seconds)),
            degraded=DegradedGrants(address=address) if may_degrade else None,
        )

    async def stop(self) -> None:
        """Disconnect."""
        await self.leases.stop(5)


def new_prefix() -> str:
    """A place of its own for each test in a Redis that is shared."""
    return f"test-{uuid4().hex[:12]}:"


def place_of(port: int, **more: object) -> RedisAddress:
    """The Redis on a port of this machine."""
    return RedisAddress(addresses=(("127.0.0.1", port),), **more)  # type: ignore[arg-type]
