"""Leases in a real Redis that fails, or is not what it should be."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from ncps.errors import Refused, Unavailable
from ncps.locks.redis import client
from ncps.locks.redis.address import Login, RedisAddress
from ncps.locks.redis.tls import verified_tls
from ncps.ports import Lease, Notice
from tests.contract.notices import Ears
from tests.contract.running import Contract, start
from tests.integration.redis_replica import Replica, place_of
from tests.integration.servers.certificates import Authority
from tests.integration.servers.process import free_port
from tests.integration.servers.redis import Redis

PREFIX = "ncps:lock:"


async def until(is_so: Callable[[], object]) -> None:
    """Look again and again; trial's time-out is the end of it."""
    while not is_so():
        await deferLater(reactor, 0.01)


class RedisCase(Contract, TestCase):
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

    def replica(self, place: RedisAddress | Redis, **more: object) -> Replica:
        if isinstance(place, Redis):
            place = place_of(place.port, timeout_s=0.5)
        replica = Replica(place, PREFIX, **more)  # type: ignore[arg-type]
        self.addCleanup(replica.stop)
        return replica

    async def running(self, place: RedisAddress | Redis, **more: object) -> Replica:
        replica = self.replica(place, **more)
        await replica.leases.start()
        return replica

    async def take(self, replica: Replica, name: str = "a") -> Lease:
        lease = await replica.leases.try_hold(name)
        assert lease is not None, "somebody has it"
        return lease

    def waiting(self, replica: Replica, name: str = "a") -> Deferred[int]:
        """Wait for a lease; the fence of it once it was held."""

        async def wait() -> int:
            async with replica.leases.hold(name) as lease:
                return lease.fence

        return start(wait())

    def logged(self, part: str) -> list[str]:
        """Lines logged from now on that hold some text; a list that grows."""
        lines: list[str] = []

        @implementer(ILogObserver)
        def observe(event: LogEvent) -> None:
            text = formatEvent(event)
            if part in text:
                lines.append(text)

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        return lines


class RefusedWritesTests(RedisCase):
    """A Redis that answers and takes nothing: no lease can be had, so it counts as away."""

    REFUSALS = (
        ("maxmemory", "1", "0", "OOM"),
        ("min-replicas-to-write", "1", "0", "NOREPLICAS"),
    )

    async def test_is_told_by_who_asks_and_without_anybody(self) -> None:
        """The reason stands in readiness and log, from the next attempt or soon without one."""
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
                f"is away, what must be fetched cannot be: 127.0.0.1:{server.port}", lines[0]
            )
        self.assertEqual(server.say("--scan"), f"{PREFIX}#fence")

    async def test_an_attempt_finds_it_out(self) -> None:
        """Whoever is refused makes it known at once; a replica that was a master is one, too."""
        server, master = self.server(), self.server()
        replica = await self.running(server)
        server.say("REPLICAOF", "127.0.0.1", str(master.port))
        await self.assert_raises(Unavailable, replica.leases.try_hold("a"))
        await until(lambda: replica.leases.trouble)
        self.assertIn("READONLY", replica.leases.trouble)
        server.say("REPLICAOF", "NO", "ONE")
        await until(lambda: not replica.leases.trouble)

    async def test_degraded_mode_counts_it_as_away(self) -> None:
        """Where it is allowed, this process goes on with leases of its own, and says so."""
        server = self.server("maxmemory 1")
        replica = await self.running(server, may_degrade=True)
        lease = await self.take(replica)
        self.assertTrue(replica.leases.is_degraded)
        self.assertEqual(server.say("--scan"), "")
        await lease.release()


class LossTests(RedisCase):
    async def test_redis_dies_under_holders_and_waiters(self) -> None:
        """The held lease is lost at its TTL, waiters get it once Redis is back, numbers grow."""
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
        """A Redis that was restarted and forgot everything breaks no attempt after that."""
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
        """A key that is gone is noticed at the next renewal, long before the TTL."""
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
        """The holder finds out, and its release does not touch what is another's."""
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
        """As long as its holder lives, a lease is held."""
        server = self.server()
        here, there = await self.running(server, ttl=0.6), await self.running(server, ttl=0.6)
        lease = await self.take(here)
        await deferLater(reactor, 1.5)
        self.assertFalse(lease.is_lost)
        self.assertIsNone(await there.leases.try_hold("a"))
        await lease.release()

    async def test_dead_holder_blocks_for_its_ttl_at_most(self) -> None:
        """A process that is gone releases nothing; who waits gets the lease all the same."""
        server = self.server()
        dead, alive = await self.running(server, ttl=1.0), await self.running(server, ttl=1.0)
        lease = await self.take(dead)
        await dead.stop()
        fence = await self.waiting(alive)
        self.assertGreater(fence, lease.fence)
        self.assertTrue(lease.is_lost)

    async def test_answer_that_does_not_come(self) -> None:
        """What was asked of a Redis that then stalled is not held by nobody for ever."""
        server = self.server()
        replica = await self.running(server, ttl=30.0)
        server.freeze()
        await self.assert_raises(Unavailable, replica.leases.try_hold("a"))
        server.thaw()  # now it carries out what it was asked before
        lease = None
        while lease is None:
            with contextlib.suppress(Unavailable):
                lease = await replica.leases.try_hold("a")
            await deferLater(reactor, 0.01)
        await lease.release()


class AwayTests(RedisCase):
    async def test_no_server_at_the_start(self) -> None:
        """The start succeeds, attempts fail at once and say why, and it heals by itself."""
        server = Redis()
        self.addCleanup(server.close)
        lines = self.logged("is away")
        back = self.logged("is there again")
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
        """One call waits for its deadline, those behind it fail at once, and it heals by itself."""
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
        """A loss is known although nobody asked for anything."""
        server = self.server()
        replica = await self.running(server)
        server.kill()
        await until(lambda: replica.leases.trouble)

    async def test_degraded_mode(self) -> None:
        """Where it is allowed, leases go on within the process, with numbers that still grow."""
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
        """Who was cut off is told that something may have been missed, then hears again."""
        server = self.server()
        here, there = await self.running(server), await self.running(server)
        ears = Ears()
        there.notices.subscribe(ears)
        server.kill()
        await until(lambda: here.leases.trouble)
        began = time.monotonic()
        await here.notices.publish(Notice("nar", "lost"))
        self.assertLess(time.monotonic() - began, 0.4)
        server.start()
        await ears.hears(Notice("gap"))
        await until(lambda: not here.leases.trouble)
        await here.notices.publish(Notice("nar", "x"))
        await ears.hears(Notice("nar", "x"))
        self.assertEqual(ears.heard, [Notice("gap"), Notice("nar", "x")])

    async def test_what_others_say_on_the_channel(self) -> None:
        """Garbage, sizes without measure and kinds of the future are not passed on."""
        server = self.server()
        here, there = await self.running(server), await self.running(server)
        ears = Ears()
        there.notices.subscribe(ears)
        channel = here.channels.notices
        for text in ("", " ", "x", "x y z", "x gap ", "\udcff\udcfe", f"x nar {'y' * 5000}"):
            server.say("PUBLISH", channel, text)
        await here.notices.publish(Notice("gap"))
        await here.notices.publish(Notice("nar", "y" * 5000))
        await here.notices.publish(Notice("nar", "last"))
        await ears.hears(Notice("nar", "last"))
        self.assertEqual(ears.heard, [Notice("nar", "last")])


class RefusalTests(RedisCase):
    async def refused(self, place: RedisAddress | Redis) -> str:
        replica = self.replica(place)
        return str(await self.assert_raises(Refused, replica.leases.start()))

    async def test_wrong_password(self) -> None:
        """A start-up error that does not repeat the password."""
        server = self.server("requirepass right")
        place = place_of(server.port, login=Login(password="wr0ng"))
        text = await self.refused(place)
        self.assertIn("WRONGPASS", text)
        self.assertNotIn("wr0ng", text)
        self.assertNotIn("wr0ng", repr(place))
        self.assertIn("NOAUTH", await self.refused(server))
        await self.running(place_of(server.port, login=Login(password="right")))

    async def test_wrong_user_or_missing_rights(self) -> None:
        """What the ACL does not allow is a start-up error."""
        server = self.server("user ncps on >pw ~* +ping +info")
        login = Login(username="nobody", password="pw")
        self.assertIn("WRONGPASS", await self.refused(place_of(server.port, login=login)))

    async def test_no_such_database(self) -> None:
        """The number of a database that is not there."""
        self.assertIn("database", await self.refused(place_of(self.server().port, db=99)))

    async def test_eviction(self) -> None:
        """A Redis that drops keys is refused, or warned of while it has no limit."""
        server = self.server("maxmemory 100mb", "maxmemory-policy allkeys-lru")
        self.assertIn("noeviction", await self.refused(server))
        volatile = self.server("maxmemory 100mb", "maxmemory-policy volatile-ttl")
        self.assertIn("noeviction", await self.refused(volatile))
        lines = self.logged("noeviction")
        await self.running(self.server("maxmemory-policy allkeys-lru"))
        self.assertEqual(len(lines), 1)

    async def test_unknown_eviction_policy(self) -> None:
        """Where nobody may look, there is a warning."""
        server = self.server("user ncps on >pw ~* &* +@all -info")
        lines = self.logged("noeviction")
        login = Login(username="ncps", password="pw")
        replica = await self.running(place_of(server.port, login=login))
        self.assertEqual(len(lines), 1)
        await (await self.take(replica)).release()

    async def test_policy_changed_while_running(self) -> None:
        """It is logged at the next connection, but nothing stops working."""
        server = self.server()
        replica = await self.running(server)
        server.configure("maxmemory 100mb", "maxmemory-policy allkeys-lru")
        lines = self.logged("noeviction")
        server.kill()
        server.start()
        await until(lambda: lines)
        await (await self.take(replica)).release()

    async def test_cluster(self) -> None:
        """A member of a Redis Cluster."""
        server = self.server("cluster-enabled yes", f"cluster-port {free_port()}")
        self.assertIn("Redis Cluster", await self.refused(server))

    async def test_replica(self) -> None:
        """A replica cannot be written to."""
        master = self.server()
        text = await self.refused(self.server(f"replicaof 127.0.0.1 {master.port}"))
        self.assertIn("replica", text)

    async def test_no_channels(self) -> None:
        """Without the right to channels waiters poll, and there is a warning."""
        server = self.server("user ncps on >pw ~* resetchannels +@all")
        lines = self.logged("allow the channels")
        login = Login(username="ncps", password="pw")
        here = await self.running(place_of(server.port, login=login))
        there = await self.running(place_of(server.port, login=login))
        lease = await self.take(here)
        waiter = self.waiting(there)
        await lease.release()
        await waiter
        self.assertEqual(len(lines), 2)

    async def test_certificate_of_an_unknown_authority(self) -> None:
        """Or for another host, or for none: a start-up error that names what is wrong."""
        directory = self.directory()
        right, wrong = Authority(directory, "right"), Authority(directory, "wrong")
        server = Redis()
        self.addCleanup(server.close)
        for names, authority, expected in (
            (["127.0.0.1"], wrong, "certificate"),
            (["127.0.0.2"], right, "another host"),
            ([], right, "certificate of 127.0.0.1 names no host"),
            (["127.0.0.1"], right, ""),
        ):
            certificate, key = right.issue("server", names=names)
            server.configure(
                f"port 0\ntls-port {server.port}",
                f"tls-cert-file {server.lend(certificate)}",
                f"tls-key-file {server.lend(key)}",
                f"tls-ca-cert-file {server.lend(right.path)}",
                "tls-auth-clients no",
            )
            server.start()
            place = place_of(server.port, tls=verified_tls(authority.path))
            if expected:
                self.assertIn(expected, await self.refused(place))
            else:
                await self.running(place)
                text = await self.refused(place_of(server.port, tls=verified_tls()))
                self.assertIn("certificate", text)
            server.kill()

    async def test_tls_to_a_server_without(self) -> None:
        """No secret is sent, and the trouble is told."""
        replica = await self.running(place_of(self.server().port, tls=verified_tls()))
        self.assertNotEqual(replica.leases.trouble, "")

    async def test_something_else_listens(self) -> None:
        """A server of another kind is trouble, not a crash."""

        class Web(Protocol):
            def dataReceived(self, data: bytes) -> None:
                assert self.transport is not None
                self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n\xff\xfe")

        web: Any = Factory.forProtocol(Web)
        port = reactor.listenTCP(0, web, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        host: Any = port.getHost()
        replica = await self.running(place_of(host.port, timeout_s=0.5))
        self.assertNotEqual(replica.leases.trouble, "")
