"""The leases of one process in Redis, for tests."""

from __future__ import annotations

from uuid import uuid4

from twisted.internet import reactor

from ncps.aio.backoff import Backoff
from ncps.locks.degraded import DegradedGrants
from ncps.locks.redis.address import RedisAddress
from ncps.locks.redis.carrier import redis_notices
from ncps.locks.redis.locks import RedisBackend
from ncps.locks.redis.node import redis_nodes
from ncps.locks.shared import SharedLeases
from ncps.observe.metrics import Metrics


class Replica:
    """Leases and notices on connections of their own.

    :param places: of one server, or of several of which a majority grants leases.
    """

    def __init__(
        self,
        *places: RedisAddress,
        prefix: str,
        address: str = "",
        ttl: float = 15.0,
        poll: float = 0.05,
        may_degrade: bool = False,
    ) -> None:
        self.nodes = redis_nodes(
            reactor, places, prefix=prefix, subject="NARs that are not stored cannot be fetched"
        )
        self.backend = RedisBackend(
            reactor,
            self.nodes,
            ttl_of=lambda _name: ttl,
            address=address,
        )
        self.notices = redis_notices(reactor, self.nodes)
        self.leases = SharedLeases(
            reactor,
            self.backend,
            polls=Backoff(first_s=poll, longest_s=poll),
            metrics=Metrics(),
            mode="redis",
            degraded=DegradedGrants(address=address) if may_degrade else None,
        )

    async def stop(self) -> None:
        """Disconnect."""
        await self.leases.stop(5)


def new_prefix() -> str:
    """Return a new key prefix for a test in a shared Redis."""
    return f"test-{uuid4().hex[:12]}:"


def place_of(port: int, *, timeout_s: float = 2.0, **more: object) -> RedisAddress:
    """Return the address of the Redis on a port of this machine."""
    return RedisAddress(addresses=(("127.0.0.1", port),), timeout_s=timeout_s, **more)  # type: ignore[arg-type]
