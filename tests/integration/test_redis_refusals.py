"""A Redis that refuses the connection or has wrong properties."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol

from ncps.errors import Refused
from ncps.locks.redis.address import Login, RedisAddress
from ncps.locks.redis.tls import verified_tls
from tests.integration.lease_case import until
from tests.integration.redis_case import RedisCase
from tests.integration.redis_replica import place_of
from tests.integration.servers.certificates import Authority
from tests.integration.servers.redis import Redis
from tests.waiting import free_port


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
        """A missing right of the ACL is a start-up error."""
        server = self.server("user ncps on >pw ~* +ping +info")
        login = Login(username="nobody", password="pw")
        self.assertIn("WRONGPASS", await self.refused(place_of(server.port, login=login)))

    async def test_no_such_database(self) -> None:
        """A number without a database is a start-up error."""
        self.assertIn("database", await self.refused(place_of(self.server().port, db=99)))

    async def test_eviction(self) -> None:
        """A Redis that drops keys is an error, or a warning while it has no limit."""
        server = self.server("maxmemory 100mb", "maxmemory-policy allkeys-lru")
        self.assertIn("noeviction", await self.refused(server))
        volatile = self.server("maxmemory 100mb", "maxmemory-policy volatile-ttl")
        self.assertIn("noeviction", await self.refused(volatile))
        lines = self.logged("noeviction")
        await self.running(self.server("maxmemory-policy allkeys-lru"))
        self.assertEqual(len(lines), 1)

    async def test_unknown_eviction_policy(self) -> None:
        """Without the right to read the policy there is a warning."""
        server = self.server("user ncps on >pw ~* &* +@all -info")
        lines = self.logged("noeviction")
        login = Login(username="ncps", password="pw")
        replica = await self.running(place_of(server.port, login=login))
        self.assertEqual(len(lines), 1)
        await (await self.take(replica)).release()

    async def test_policy_changed_while_running(self) -> None:
        """It is logged at the next connection, and everything continues."""
        server = self.server()
        replica = await self.running(server)
        server.configure("maxmemory 100mb", "maxmemory-policy allkeys-lru")
        lines = self.logged("noeviction")
        server.kill()
        server.start()
        await until(lambda: lines)
        await (await self.take(replica)).release()

    async def test_cluster(self) -> None:
        """A member of a Redis Cluster is a start-up error."""
        server = self.server("cluster-enabled yes", f"cluster-port {free_port()}")
        self.assertIn("Redis Cluster", await self.refused(server))

    async def test_replica(self) -> None:
        """A replica is a start-up error, because it cannot be written."""
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
        """A certificate for another host, or none, is a start-up error that names the fault."""
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
        """No secret is sent, and the error is reported."""
        replica = await self.running(place_of(self.server().port, tls=verified_tls()))
        self.assertNotEqual(replica.leases.trouble, "")

    async def test_something_else_listens(self) -> None:
        """A server of another kind is an error, not a crash."""

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
