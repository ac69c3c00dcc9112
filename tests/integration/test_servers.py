"""The servers of the tests have the properties that tests rely on."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.servers import shared
from tests.integration.servers.database import DatabaseServer
from tests.integration.servers.mariadb import MariaDB
from tests.integration.servers.mysql import MySQL
from tests.integration.servers.postgresql import PostgreSQL
from tests.integration.servers.radosgw import RadosGW
from tests.integration.servers.redis import Redis


class ServerTests(SynchronousTestCase):
    def check(self, server: DatabaseServer) -> None:
        name = server.new_database().rpartition("/")[2]
        server.execute("CREATE TABLE there (id INTEGER)", name)
        server.execute("INSERT INTO there VALUES (17)", name)
        port = server.port
        for end in (server.stop, server.crash):
            end()
            server.start()
            self.assertEqual(server.port, port)
            self.assertEqual(server.execute("SELECT id FROM there", name), [(17,)])
        server.freeze()
        server.thaw()
        self.assertEqual(server.kill_connections(name), 0)
        server.close()
        self.assertFalse(server.directory.exists())

    def test_postgresql(self) -> None:
        """It starts, makes databases, keeps committed rows over its ends, and is removed."""
        with PostgreSQL() as server:
            self.check(server)

    def test_mariadb(self) -> None:
        """It starts, makes databases, keeps committed rows over its ends, and is removed."""
        with MariaDB() as server:
            self.check(server)

    def test_mysql(self) -> None:
        """It starts, makes databases, keeps committed rows over its ends, and is removed."""
        with MySQL() as server:
            self.check(server)

    def test_radosgw(self) -> None:
        """It starts, makes buckets, keeps objects while the gateway is away, and is removed."""
        with RadosGW() as server:
            path = f"/{server.new_bucket()}/some object"
            self.assertEqual(server.request("PUT", path, body=b"bytes")[0], 200)
            endpoint = server.endpoint
            for end in (server.stop, server.crash):
                end()
                server.start()
                self.assertEqual(server.endpoint, endpoint)
                self.assertEqual(server.request("GET", path), (200, b"bytes"))
            server.freeze()
            server.thaw()
            self.assertEqual(server.request("GET", path, secret_key="another")[0], 403)
        self.assertFalse(server.directory.exists())

    def test_redis(self) -> None:
        """It starts, loses all data when it is killed, and is removed."""
        with Redis() as server:
            port = server.port
            server.say("SET", "there", "17")
            self.assertEqual(server.say("GET", "there"), "17")
            server.kill()
            server.start()
            self.assertEqual((server.port, server.say("GET", "there")), (port, ""))
            server.freeze()
            server.thaw()
        self.assertFalse(server.directory.exists())

    def test_tests_share_servers(self) -> None:
        """Each time it is the same server and a new database."""
        for ask in (shared.postgresql, shared.mariadb, shared.mysql):
            self.assertIs(ask(), ask())
            self.assertNotEqual(ask().new_database(), ask().new_database())
        self.assertIs(shared.radosgw(), shared.radosgw())
        self.assertIs(shared.redis(), shared.redis())
        self.assertNotEqual(shared.radosgw().new_bucket(), shared.radosgw().new_bucket())
