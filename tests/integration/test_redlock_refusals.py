"""Several Redis servers of which one is wrong, at the start and later."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.protocols import portforward

from ncps.aio.waiting import sleep
from ncps.errors import Refused
from ncps.locks.redis import client
from ncps.locks.redis.address import Login, RedisAddress
from tests.integration.lease_case import until
from tests.integration.redis_case import RedisCase
from tests.integration.redis_replica import place_of
from tests.integration.servers.redis import Redis
from tests.waiting import free_port


class RefusalTests(RedisCase):
    """At the start each is an error that names the server and a right value."""

    async def refused(self, *places: RedisAddress | Redis) -> str:
        replica = self.replica(*places)
        return str(await self.assert_raises(Refused, replica.leases.start()))

    def otherwise(self, server: Redis) -> RedisAddress:
        """Return another address of a server."""
        return RedisAddress(addresses=(("localhost", server.port),), timeout_s=2.0)

    async def test_one_server_twice(self) -> None:
        """By name and by number: the error has both addresses."""
        server = self.server()
        text = await self.refused(server, self.otherwise(server), self.server())
        for part in (f"127.0.0.1:{server.port}", f"localhost:{server.port}", "same Redis server"):
            self.assertIn(part, text)
        self.assertIn("cache-redis-addrs", text)

    async def test_a_replica_of_another(self) -> None:
        """A replica accepts no writes."""
        master = self.server()
        replica = self.server(f"replicaof 127.0.0.1 {master.port}")
        text = await self.refused(master, replica, self.server())
        self.assertIn(f"127.0.0.1:{replica.port} is a replica", text)

    async def test_another_password(self) -> None:
        """The error has no password, and all problems are reported together."""
        other, member = self.server("requirepass 0ther"), self.member()
        places = [
            place_of(server.port, login=Login(password="r1ght"))
            for server in (self.server("requirepass r1ght"), other, member)
        ]
        text = await self.refused(*places)
        for part in (f"127.0.0.1:{other.port} refuses the login", "the same for all servers"):
            self.assertIn(part, text)
        self.assertIn(f"127.0.0.1:{member.port}", text)
        self.assertNotIn("r1ght", text)

    async def test_a_member_of_a_cluster(self) -> None:
        """The error asks for independent servers."""
        text = await self.refused(self.server(), self.server(), self.member())
        self.assertIn("Redis Cluster", text)
        self.assertIn("3 or 5 independent ones", text)

    def member(self) -> Redis:
        return self.server("cluster-enabled yes", f"cluster-port {free_port()}")


class LaterTests(RedisCase):
    """A server that becomes wrong later is away, and the log says why; the others continue."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(client, "CHECK_S", 0.2)

    async def test_a_server_comes_back_as_another(self) -> None:
        """A replica, or a server with another password: the log has it, and leases work."""
        servers = [self.server(), self.server(), Redis()]
        self.addCleanup(servers[2].close)
        replica = await self.running(*servers, ttl=3.0)
        for lines, word in (
            ((f"replicaof 127.0.0.1 {servers[0].port}",), "is a replica"),
            (("requirepass other",), "refuses the login"),
        ):
            logged = self.logged(word)
            servers[2].configure(*lines)
            servers[2].start()
            await until(lambda: logged)  # noqa: B023
            await (await self.take(replica)).release()
            self.assertEqual("", replica.leases.trouble)
            servers[2].kill()
        logged = self.logged("answers again")
        servers[2].configure()
        servers[2].start()
        await until(lambda: logged)

    async def test_a_server_comes_back_as_a_member_of_a_cluster(self) -> None:
        """It counts as away, also if it has all slots, so that it accepts writes."""
        servers = [self.server(), self.server(), Redis()]
        self.addCleanup(servers[2].close)
        member = ("cluster-enabled yes", f"cluster-port {free_port()}")
        servers[2].configure(*member)
        servers[2].start()
        servers[2].say("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        servers[2].kill()
        servers[2].configure()
        servers[2].start()
        replica = await self.running(*servers, ttl=3.0)
        logged = self.logged("is part of a Redis Cluster, which")
        servers[2].kill()
        servers[2].configure(*member)
        servers[2].start()
        back = self.logged("answers again")
        await until(lambda: "cluster_state:ok" in servers[2].say("CLUSTER", "INFO"))
        await sleep(reactor, 2.5)  # longer than the pause before any attempt so far
        self.assertIn("is part of a Redis Cluster", replica.nodes[2].trouble)
        self.assertEqual(([], 1), (back, len(logged)))
        await (await self.take(replica)).release()

    async def test_an_address_that_moves_to_another_server(self) -> None:
        """The server at the new address is not counted twice."""
        servers = [self.server(), self.server(), self.server()]
        port = servers[2].port
        replica = await self.running(*servers, ttl=3.0)
        logged = self.logged("is the same Redis server as")
        servers[2].kill()
        await until(lambda: replica.nodes[2].trouble)
        relay: Any = portforward.ProxyFactory("127.0.0.1", servers[0].port)
        moved = reactor.listenTCP(port, relay, interface="127.0.0.1")
        self.addCleanup(moved.stopListening)
        await until(lambda: logged)
        self.assertIn(f"127.0.0.1:{port} is the same", logged[0])
        await (await self.take(replica)).release()
