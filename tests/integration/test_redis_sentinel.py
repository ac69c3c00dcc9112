"""Leases in a Redis with Sentinels."""

from __future__ import annotations

from ncps.errors import Refused, Unavailable
from ncps.locks.redis.address import Login, RedisAddress
from tests.integration.lease_case import until
from tests.integration.redis_case import RedisCase
from tests.integration.servers.redis import Redis
from tests.waiting import free_port

SECRET = "s3cret"


class SentinelTests(RedisCase):
    def sentinel(self, master: Redis) -> Redis:
        server = Redis(
            f"sentinel monitor ours 127.0.0.1 {master.port} 1",
            f"sentinel auth-pass ours {SECRET}",
            "sentinel down-after-milliseconds ours 500",
            "sentinel failover-timeout ours 3000",
            "requirepass guard",
            sentinel=True,
        )
        self.addCleanup(server.close)
        server.start()
        return server

    def place(self, *ports: int, name: str = "ours", password: str = "guard") -> RedisAddress:
        return RedisAddress(
            addresses=tuple(("127.0.0.1", port) for port in ports),
            master=name,
            login=Login(password=SECRET),
            sentinel_login=Login(password=password),
            timeout_s=1.0,
        )

    async def test_a_failover_is_followed(self) -> None:
        """When the master dies its replica takes over; old leases are lost, numbers grow."""
        secrets = (f"requirepass {SECRET}", f"masterauth {SECRET}")
        master = self.server(*secrets)
        spare = self.server(*secrets, f"replicaof 127.0.0.1 {master.port}")
        sentinel = self.sentinel(master)

        def knows_spare() -> bool:
            known = sentinel.say("SENTINEL", "replicas", "ours", password="guard")
            return str(spare.port) in known and "master-link-status\nok" in known

        await until(knows_spare)
        # One of the Sentinels is away: ncps asks the other one.
        replica = await self.running(self.place(free_port(), sentinel.port), ttl=3.0)
        lease = await self.take(replica)
        await until(lambda: spare.say("EXISTS", "ncps:lock:a", password=SECRET) == "1")
        master.kill()
        await until(lambda: lease.is_lost or spare.say("ROLE", password=SECRET)[:6] == "master")
        fence = None
        while fence is None:
            try:
                fence = (await self.take(replica, "b")).fence
            except Unavailable:
                await until(lambda: not replica.leases.trouble)
        self.assertGreater(fence, lease.fence)
        await lease.release()

    async def test_masters_unknown_to_the_sentinels(self) -> None:
        """An unknown name is reported; a wrong password for them is a start-up error."""
        sentinel = self.sentinel(self.server(f"requirepass {SECRET}"))
        replica = await self.running(self.place(sentinel.port, name="theirs"))
        self.assertIn("knows no master theirs", replica.leases.trouble)
        wrong = self.replica(self.place(sentinel.port, password="wr0ng"))
        error = await self.assert_raises(Refused, wrong.leases.start())
        self.assertNotIn("wr0ng", str(error))

    async def test_a_server_that_is_no_sentinel(self) -> None:
        """The error says that the address is not that of a Sentinel."""
        replica = await self.running(
            RedisAddress(
                addresses=(("127.0.0.1", self.server().port),), timeout_s=2.0, master="ours"
            )
        )
        self.assertIn("SENTINEL", replica.leases.trouble)
