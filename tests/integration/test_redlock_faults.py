"""Leases at three and five real Redis servers that die, hang, lose data, or have other clocks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from ncps.errors import Unavailable
from ncps.locks.redis import client
from ncps.locks.redis.connection import RedisConnection
from ncps.locks.redis.node import at_once
from ncps.ports import Notice
from tests.contract.notices import Subscriber
from tests.contract.running import start
from tests.integration.lease_case import until
from tests.integration.redis_case import PREFIX, RedisCase
from tests.integration.redis_replica import Replica, place_of
from tests.integration.servers.redis import Redis

NAMES = 32
TIMEOUT_S = 5.0
"""Long enough that no server seems away because this machine is busy."""
HOUR_S = 3600


class RedlockCase(RedisCase):
    def servers(self, count: int) -> list[Redis]:
        return [self.server() for _ in range(count)]

    async def replicas(self, count: int, servers: list[Redis], **more: object) -> list[Replica]:
        places = [place_of(server.port, timeout_s=TIMEOUT_S) for server in servers]
        return await at_once(self.running(*places, **more) for _ in range(count))

    def keys(self, server: Redis) -> str:
        """Return the value of the lease at a server."""
        return server.say("GET", f"{PREFIX}a")

    async def until_known(self, server: Redis, *, is_known: bool = True) -> None:
        """Wait until a server has the lease, or has it no more; leases are renewed meanwhile."""
        while bool(await deferToThread(self.keys, server)) != is_known:
            await deferLater(reactor, 0.01)


class MinorityTests(RedlockCase):
    """Faults of a minority of the servers have no effect on processes."""

    async def test_is_killed_while_leases_are_taken(self) -> None:
        """Two of five die under load; no attempt fails, and none is slow."""
        servers = self.servers(5)
        here, there = await self.replicas(2, servers)
        slowest = 0.0
        is_over = False

        async def load(replica: Replica, name: str) -> None:
            nonlocal slowest
            while not is_over:
                began = time.monotonic()
                async with replica.leases.hold(name) as lease:
                    self.assertFalse(lease.is_lost)
                slowest = max(slowest, time.monotonic() - began)
                await deferLater(reactor, 0.002)

        loads = [start(load(each, name)) for each in (here, there) for name in ("a", "b", "c")]
        for server in servers[1:3]:
            await deferLater(reactor, 0.1)
            server.kill()
        await deferLater(reactor, 0.2)
        is_over = True
        for each in loads:
            await each
        self.assertEqual(["", ""], [here.leases.trouble, there.leases.trouble])
        self.assertLess(slowest, TIMEOUT_S)

    async def test_hangs(self) -> None:
        """A server that accepts everything and never answers delays no call."""
        servers = self.servers(3)
        here, there = await self.replicas(2, servers)
        servers[0].freeze()
        self.addCleanup(servers[0].thaw)
        began = time.monotonic()
        for _ in range(20):
            lease = await self.take(here)
            self.assertIsNone(await there.leases.try_hold("a"))
            await there.leases.holder("a")
            await lease.release()
        self.assertLess(time.monotonic() - began, TIMEOUT_S)

    async def test_comes_back_empty_one_after_the_other(self) -> None:
        """All three restart without their data, and the lease is held all the time."""
        servers = self.servers(3)
        here, there = await self.replicas(2, servers, ttl=3.0)
        lease = await self.take(here)
        for server in servers:
            server.kill()
            await deferToThread(server.start)
            await self.until_known(server)
            self.assertIsNone(await there.leases.try_hold("a"))
        self.assertFalse(lease.is_lost)
        await lease.release()
        second = await self.take(there)
        self.assertGreater(second.fence, lease.fence)
        await second.release()

    async def test_is_emptied_or_holds_what_is_anothers(self) -> None:
        """The key comes back, and the release leaves keys of others alone."""
        servers = self.servers(3)
        (replica,) = await self.replicas(1, servers, ttl=2.0)
        lease = await self.take(replica)
        servers[0].say("FLUSHALL")
        await self.until_known(servers[0])
        servers[1].say("SET", f"{PREFIX}a", "another")
        await deferLater(reactor, 2.0)
        self.assertFalse(lease.is_lost)
        await lease.release()
        await self.until_known(servers[2], is_known=False)
        self.assertEqual("another", self.keys(servers[1]))

    async def test_is_away_at_the_start(self) -> None:
        """It is logged, and used when it comes; leases work from the beginning."""
        servers = [self.server(), self.server(), Redis()]
        self.addCleanup(servers[2].close)
        away, back = self.logged("is away"), self.logged("answers again")
        (replica,) = await self.replicas(1, servers, ttl=1.5)
        self.assertEqual("", replica.leases.trouble)
        while not away:  # the replica needs two of them to be ready
            await deferLater(reactor, 0.01)
        self.assertIn("one of 3 servers of which leases need 2", away[0])
        lease = await self.take(replica)
        await deferToThread(servers[2].start)
        await self.until_known(servers[2])
        await lease.release()
        self.assertEqual((1, 1), (len(away), len(back)))


class MajorityTests(RedlockCase):
    async def test_goes_away_and_comes_back(self) -> None:
        """Attempts fail immediately, the holder loses its lease in time; then all recovers."""
        servers = self.servers(3)
        here, there = await self.replicas(2, servers, ttl=1.5)
        subject = "NARs that are not stored cannot be fetched"
        lines = self.logged(f"2 of 3 Redis servers are away, {subject}: 127")
        again = self.logged("enough Redis servers answer again")
        lease = await self.take(here)
        for server in servers[:2]:
            server.kill()
        failure = await self.assert_raises(Unavailable, there.leases.try_hold("b"))
        self.assertIsNotNone(failure.retry_after)
        await until(lambda: here.leases.trouble and there.leases.trouble)
        self.assertIn("2 of 3 Redis servers are away", here.leases.trouble)
        for server in servers[:2]:
            self.assertIn(f"127.0.0.1:{server.port}", here.leases.trouble)
        await until(lambda: lease.is_lost)
        servers[0].start()
        await until(lambda: not (here.leases.trouble or there.leases.trouble))
        second = await self.waiting(there)
        self.assertGreater(second, lease.fence)
        await lease.release()
        await until(lambda: len(again) == 2)
        self.assertEqual(2, len(lines), lines)

    async def test_degraded_mode(self) -> None:
        """It begins when a majority is away, not earlier."""
        servers = self.servers(3)
        (replica,) = await self.replicas(1, servers, may_degrade=True)
        servers[0].kill()
        await until(lambda: replica.nodes[0].trouble)
        self.assertFalse(replica.leases.is_degraded)
        servers[1].kill()
        await until(lambda: replica.leases.is_degraded)
        await (await self.take(replica)).release()

    async def test_forgets_everything(self) -> None:
        """All servers restart empty at the same time: the holder notices it, and numbers grow."""
        servers = self.servers(3)
        here, there = await self.replicas(2, servers, ttl=3.0)
        lease = await self.take(here)
        for server in servers:
            server.kill()
        for server in servers:
            server.start()
        await until(lambda: not there.leases.trouble)
        fence = None
        while fence is None:
            try:
                fence = (await self.take(there)).fence
            except Unavailable:
                await deferLater(reactor, 0.05)
        self.assertGreater(fence, lease.fence)
        await until(lambda: lease.is_lost)


class ContestTests(RedlockCase):
    async def test_many_names_at_once(self) -> None:
        """Three processes want 32 names at the same time: each gets each, one after the other."""
        replicas = await self.replicas(3, self.servers(3))
        inside: set[str] = set()
        fences: dict[str, list[int]] = {}

        async def work(replica: Replica, name: str) -> None:
            async with replica.leases.hold(name) as lease:
                self.assertNotIn(name, inside)
                inside.add(name)
                await deferLater(reactor, 0)
                inside.remove(name)
                self.assertFalse(lease.is_lost)
                fences.setdefault(name, []).append(lease.fence)

        names = [f"name {number}" for number in range(NAMES)]
        await at_once(work(replica, name) for name in names for replica in replicas)
        for found in fences.values():
            self.assertEqual((3, sorted(set(found))), (len(found), found))

    async def test_one_of_those_who_try_at_once_has_it(self) -> None:
        """If each gets a part of the servers, one of them still gets the lease."""
        replicas = await self.replicas(3, self.servers(3))
        for number in range(10):
            name = f"name {number}"
            got = await at_once(replica.leases.try_hold(name) for replica in replicas)
            (lease,) = [lease for lease in got if lease is not None]
            await lease.release()


class ClockTests(RedlockCase):
    def set_clocks(self, clocks: Mapping[int, float]) -> None:
        """Set the clocks of servers, by port, forward by some seconds."""
        right = RedisConnection.script

        async def wrong(self: RedisConnection, script: str, *more: Any) -> Any:
            ahead = clocks.get(int(self.name.rpartition(":")[2]), 0.0)
            time = "local time = redis.call('TIME')"
            return await right(
                self, script.replace(time, f"{time}; time[1] = time[1] + {ahead:.0f}"), *more
            )

        self.patch(RedisConnection, "script", wrong)

    async def test_clocks_hours_apart(self) -> None:
        """Numbers grow with any majority."""
        servers = self.servers(3)
        self.set_clocks({servers[0].port: HOUR_S, servers[2].port: -HOUR_S})
        here, there = await self.replicas(2, servers)
        fences = []
        for away in (None, servers[0], servers[1], servers[2], None):
            if away is not None:
                away.freeze()
            for replica in (here, there, here):
                lease = await self.take(replica)
                fences.append(lease.fence)
                await lease.release()
            if away is not None:
                away.thaw()
                await until(lambda: not any(n.trouble for n in (*here.nodes, *there.nodes)))
        self.assertEqual(sorted(set(fences)), fences)

    async def test_a_clock_that_is_set_back(self) -> None:
        """The servers have recorded their largest numbers."""
        servers = self.servers(3)
        clocks = dict.fromkeys((server.port for server in servers), float(HOUR_S))
        self.set_clocks(clocks)
        here, there = await self.replicas(2, servers)
        lease = await self.take(here)
        await lease.release()
        clocks.clear()
        second = await self.take(there)
        self.assertGreater(second.fence, lease.fence)
        await second.release()


class NoticesTests(RedlockCase):
    async def test_each_is_taken_once(self) -> None:
        """A server that goes and comes back loses no notice, repeats none, and makes no gap."""
        self.patch(client, "CHECK_S", 0.2)
        servers = self.servers(3)
        here, there = await self.replicas(2, servers)
        subscriber = Subscriber()
        there.notices.subscribe(subscriber)
        for number, server in enumerate(servers):
            server.kill()
            await here.notices.publish(Notice("nar", f"{number} without"))
            await subscriber.receives(Notice("nar", f"{number} without"))
            server.start()
            nodes = here.nodes + there.nodes
            await until(lambda: all(n.channels.is_up and not n.trouble for n in nodes))  # noqa: B023
            await here.notices.publish(Notice("nar", f"{number} with"))
            await subscriber.receives(Notice("nar", f"{number} with"))
        await deferLater(reactor, 0.1)
        self.assertEqual(6, len(subscriber.received), subscriber.received)

    async def test_a_gap(self) -> None:
        """A process that was cut off from a majority gets a gap."""
        servers = self.servers(3)
        (replica,) = await self.replicas(1, servers)
        subscriber = Subscriber()
        replica.notices.subscribe(subscriber)
        for server in servers[:2]:
            server.kill()
        await until(lambda: replica.leases.trouble)
        for server in servers[:2]:
            server.start()
        await subscriber.receives(Notice("gap"))
        await until(lambda: all(node.channels.is_up for node in replica.nodes))
        self.assertEqual([Notice("gap")], subscriber.received)
