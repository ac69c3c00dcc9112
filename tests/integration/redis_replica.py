"""What one process has of Redis, for tests."""

from __future__ import annotations

from uuid import uuid4

from twisted.internet import reactor

from ncps.locks.redis.address import RedisAddress
from ncps.locks.redis.channels import RedisChannels, redis_notices
from ncps.locks.redis.locks import RedisRegistry
from ncps.locks.shared import Polls, SharedLeases


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
        self.registry = RedisRegistry(
            reactor,
            self.channels,
            ttl_of=lambda _name: ttl,
            address=address,
        )
        self.notices = redis_notices(self.registry.client, self.channels)
        self.observed: list[tuple[str, float]] = []
        self.leases = SharedLeases(
            reactor,
            self.registry,
            polls=Polls(initial_s=poll, longest_s=poll),
            observe=lambda what, seconds: self.observed.append((what, seconds)),
            may_degrade=may_degrade,
            address=address,
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
