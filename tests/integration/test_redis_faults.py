"""Leases in a real Redis that refuses writes, dies, hangs, or is away."""

from __future__ import annotations

import contextlib
import time

from twisted.internet import reactor
from twisted.internet.task import deferLater

from ncps.errors import Unavailable
from ncps.locks.redis import client
from ncps.ports import Notice
from tests.contract.notices import Subscriber
from tests.contract.running import start
from tests.integration.lease_case import until
from tests.integration.redis_case import PREFIX, RedisCase
from tests.integration.servers.redis import Redis


class RefusedWritesTests(RedisCase):
    """A Redis that refuses all writes grants no lease, so it counts as away."""

    REFUSALS = (
        ("maxmemory", "1", "0", "OOM"),
        ("min-replicas-to-write", "1", "0", "NOREPLICAS"),
    )

    async def test_an_outage_is_reported_by_waiters_and_without_waiters(self) -> None:
        """Readiness and log have the reason, from the next attempt on, or soon without one."""
        self.patch(client, "CHECK_S", 0.2)
        server = self.server()
        replica = await self.running(server)
        for setting, bad, good, word in self.REFUSALS:
            lines = self.logged("Redis (")
            server.say("CONFIG", "SET", setting, bad)
            await until(lambda: replica.leases.trouble)
            self.assertIn(word, replica.leases.trouble)
            self.assertIn("refuses writes", replica.leases.trouble)
            failure = await self.assert_raises(Unavailable, replica.leases.try_hold("a"))
            self.assertIn(word, str(failure))
            self.assertFalse(replica.leases.is_degraded)
            server.say("CONFIG", "SET", setting, good)
            await until(lambda: not replica.leases.trouble)
            await (await self.take(replica)).release()
            self.assertEqual(2, len(lines), lines)
            self.assertIn(
                f"is away, NARs that are not stored cannot be fetched: 127.0.0.1:{server.port}",
                lines[0],
            )
        self.assertEqual(server.say("--scan"), f"{PREFIX}#fence")

    async def test_an_attempt_finds_it_out(self) -> None:
        """A refusal is reported immediately, also of a master that has become a replica."""
        server, master = self.server(), self.server()
        replica = await self.running(server)
        server.say("REPLICAOF", "127.0.0.1", str(master.port))
        await self.assert_raises(Unavailable, replica.leases.try_hold("a"))
        await until(lambda: replica.leases.trouble)
        self.assertIn("is a replica", replica.leases.trouble)
        server.say("REPLICAOF", "NO", "ONE")
        await until(lambda: not replica.leases.trouble)

    async def test_degraded_mode_counts_it_as_away(self) -> None:
        """In degraded mode this process continues with leases of its own, and says so."""
        server = self.server("maxmemory 1")
        replica = await self.running(server, may_degrade=True)
        lease = await self.take(replica)
        self.assertTrue(replica.leases.is_degraded)
        self.assertEqual(server.say("--scan"), "")
        await lease.release()


class LossTests(RedisCase):
    async def test_redis_dies_under_holders_and_waiters(self) -> None:
        """The lease is lost at its TTL, waiters get it once Redis is back, numbers grow."""
        server = self.server()
        here = await self.running(server, ttl=1.5)
        there = await self.running(server, ttl=1.5, may_degrade=False)
        lease = await self.take(here)
        waiter = self.waiting(there)
        server.kill()
        self.assertFalse(lease.is_lost)
        await self.assert_raises(Unavailable, waiter)
        await until(lambda: lease.is_lost)
        server.start()
        await until(lambda: not there.leases.trouble)
        second = await self.waiting(there)
        self.assertGreater(second, lease.fence)
        self.assertTrue(lease.is_lost)
        await lease.release()

    async def test_restart_between_leases_is_not_noticed(self) -> None:
        """After a restart without data all later attempts succeed."""
        server = self.server()
        replica = await self.running(server)
        first = await self.take(replica)
        await first.release()
        server.kill()
        server.start()
        second = await self.take(replica)
        self.assertGreater(second.fence, first.fence)
        await second.release()

    async def test_restart_that_forgets_loses_the_lease(self) -> None:
        """The next renewal notices a missing key, long before the TTL."""
        server = self.server()
        replica = await self.running(server, ttl=3.0)
        lease = await self.take(replica)
        began = time.monotonic()
        server.kill()
        server.start()
        await until(lambda: lease.is_lost)
        self.assertLess(time.monotonic() - began, 2.9)
        await lease.release()

    async def test_key_deleted_or_stolen_behind_our_back(self) -> None:
        """The holder notices it, and its release does not change the lease of another holder."""
        server = self.server()
        replica = await self.running(server, ttl=1.5)
        for theft in (("DEL", f"{PREFIX}a"), ("SET", f"{PREFIX}a", "somebody else")):
            lease = await self.take(replica)
            server.say(*theft)
            await until(lambda lease=lease: lease.is_lost)  # type: ignore[misc]
            await lease.release()
        self.assertEqual(server.say("GET", f"{PREFIX}a"), "somebody else")
        self.assertEqual(await replica.leases.holder("a"), "")

    async def test_renewed_lease_outlives_its_ttl(self) -> None:
        """A lease is held while its holder lives."""
        server = self.server()
        here, there = await self.running(server, ttl=0.6), await self.running(server, ttl=0.6)
        lease = await self.take(here)
        await deferLater(reactor, 1.5)
        self.assertFalse(lease.is_lost)
        self.assertIsNone(await there.leases.try_hold("a"))
        await lease.release()

    async def test_dead_holder_blocks_for_its_ttl_at_most(self) -> None:
        """A dead process releases nothing; a waiting one gets the lease after the TTL."""
        server = self.server()
        dead, alive = await self.running(server, ttl=1.0), await self.running(server, ttl=1.0)
        lease = await self.take(dead)
        await dead.stop()
        fence = await self.waiting(alive)
        self.assertGreater(fence, lease.fence)
        self.assertTrue(lease.is_lost)

    async def test_answer_that_does_not_come(self) -> None:
        """A lease that a stalled Redis grants too late does not stay."""
        server = self.server()
        replica = await self.running(server, ttl=30.0)
        server.freeze()
        await self.assert_raises(Unavailable, replica.leases.try_hold("a"))
        server.thaw()  # now it executes the earlier commands
        lease = None
        while lease is None:
            with contextlib.suppress(Unavailable):
                lease = await replica.leases.try_hold("a")
            await deferLater(reactor, 0.01)
        await lease.release()


class AwayTests(RedisCase):
    async def test_no_server_at_the_start(self) -> None:
        """The start succeeds, attempts fail immediately with the reason, and it recovers."""
        server = Redis()
        self.addCleanup(server.close)
        lines = self.logged("is away")
        back = self.logged("answers again")
        replica = await self.running(server)
        self.assertIn("refused", replica.leases.trouble)
        error = await self.assert_raises(Unavailable, replica.leases.try_hold("a"))
        self.assertIn(f"127.0.0.1:{server.port}", str(error))
        self.assertIsNotNone(error.retry_after)
        await self.assert_raises(Unavailable, replica.leases.holder("a"))
        server.start()
        await until(lambda: not replica.leases.trouble)
        await (await self.take(replica)).release()
        self.assertEqual((len(lines), len(back)), (1, 1))

    async def test_stalled_server(self) -> None:
        """One call waits for its deadline, later ones fail immediately; then all recovers."""
        server = self.server()
        replica = await self.running(server)
        server.freeze()
        began = time.monotonic()
        attempts = [start(replica.leases.try_hold(str(number))) for number in range(20)]
        for attempt in attempts:
            await self.assert_raises(Unavailable, attempt)
        self.assertLess(time.monotonic() - began, 3)
        await until(lambda: replica.leases.trouble)
        began = time.monotonic()
        for number in range(100):
            await self.assert_raises(Unavailable, replica.leases.try_hold(str(number)))
        self.assertLess(time.monotonic() - began, 0.4)
        server.thaw()
        await until(lambda: not replica.leases.trouble)
        await (await self.take(replica, "new")).release()

    async def test_idle_connection_is_watched(self) -> None:
        """A loss is noticed without any call."""
        server = self.server()
        replica = await self.running(server)
        server.kill()
        await until(lambda: replica.leases.trouble)

    async def test_degraded_mode(self) -> None:
        """In degraded mode leases are in the process, with growing numbers."""
        server = self.server()
        replica = await self.running(server, may_degrade=True, address="http://here")
        first = await self.take(replica)
        await first.release()
        server.kill()
        await until(lambda: replica.leases.trouble)
        self.assertTrue(replica.leases.is_degraded)
        second = await self.take(replica)
        self.assertFalse(second.is_lost)
        self.assertGreater(second.fence, first.fence)
        self.assertIsNone(await replica.leases.try_hold("a"))
        self.assertEqual(await replica.leases.holder("a"), "http://here")
        waiter = self.waiting(replica)
        server.start()
        await until(lambda: not replica.leases.is_degraded)
        await second.release()
        self.assertGreater(await waiter, second.fence)
        self.assertEqual(server.say("--scan", "--pattern", f"{PREFIX}*"), f"{PREFIX}#fence")

    async def test_notices_after_a_gap(self) -> None:
        """A subscriber that was cut off gets a gap, then notices again."""
        server = self.server()
        here, there = await self.running(server), await self.running(server)
        subscriber = Subscriber()
        there.notices.subscribe(subscriber)
        server.kill()
        await until(lambda: here.leases.trouble)
        began = time.monotonic()
        await here.notices.publish(Notice("nar", "lost"))
        self.assertLess(time.monotonic() - began, 0.4)
        server.start()
        await subscriber.receives(Notice("gap"))
        await until(lambda: not here.leases.trouble)
        await here.notices.publish(Notice("nar", "x"))
        await subscriber.receives(Notice("nar", "x"))
        self.assertEqual(subscriber.received, [Notice("gap"), Notice("nar", "x")])

    async def test_messages_of_others_on_the_channel(self) -> None:
        """Garbage, huge sizes and unknown kinds are ignored."""
        server = self.server()
        here, there = await self.running(server), await self.running(server)
        subscriber = Subscriber()
        there.notices.subscribe(subscriber)
        channel = here.nodes[0].channels.notices
        for text in ("", " ", "x", "x y z", "x gap ", "\udcff\udcfe", f"x nar {'y' * 5000}"):
            server.say("PUBLISH", channel, text)
        await here.notices.publish(Notice("gap"))
        await here.notices.publish(Notice("nar", "y" * 5000))
        await here.notices.publish(Notice("nar", "last"))
        await subscriber.receives(Notice("nar", "last"))
        self.assertEqual(subscriber.received, [Notice("nar", "last")])
