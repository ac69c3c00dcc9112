"""Leases and notices in a healthy real Redis."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import TestCase

from ncps.locks.redis.address import Login
from ncps.locks.redis.tls import verified_tls
from tests.contract.leases import SharedLeasesContract
from tests.contract.notices import NoticesContract
from tests.integration.redis_replica import Replica, new_prefix, place_of
from tests.integration.servers import shared
from tests.integration.servers.certificates import Authority
from tests.integration.servers.redis import Redis


class RedisLeasesTests(SharedLeasesContract, TestCase):
    timeout = 30

    async def setUp(self) -> None:  # type: ignore[override]
        super().setUp()
        self.server = shared.redis()
        self.prefix = new_prefix()
        place = place_of(self.server.port)
        # Nothing here may depend on polling: that would take longer than a test may.
        here = Replica(place, prefix=self.prefix, address=self.address, poll=60)
        there = Replica(place, prefix=self.prefix, address=self.other_address, poll=60)
        for replica in (here, there):
            await replica.leases.start()
            self.addCleanup(replica.stop)
        self.leases, self.other = here.leases, there.leases

    def tearDown(self) -> None:
        """Check that only the number is left."""
        keys = self.server.say("--scan", "--pattern", f"{self.prefix}*")
        self.assertIn(keys, ("", f"{self.prefix}#fence"))


class RedisNoticesTests(NoticesContract, TestCase):
    timeout = 30

    async def setUp(self) -> None:  # type: ignore[override]
        super().setUp()
        prefix = new_prefix()
        place = place_of(shared.redis().port)
        here, there = (Replica(place, prefix=prefix) for _ in range(2))
        for replica in (here, there):
            await replica.leases.start()
            self.addCleanup(replica.stop)
        self.notices, self.other_notices = here.notices, there.notices


class TLSAndACLTests(NoticesContract, SharedLeasesContract, TestCase):
    """The same tests as a user with few rights, over TLS with certificates on both sides."""

    timeout = 30

    async def setUp(self) -> None:  # type: ignore[override]
        super().setUp()
        authority = Authority(Path(self.mktemp()), "authority")
        server_cert, server_key = authority.issue("server")
        own_cert, own_key = authority.issue("ncps")
        server = Redis()
        self.addCleanup(server.close)
        server.configure(
            f"port 0\ntls-port {server.port}",
            f"tls-cert-file {server.lend(server_cert)}",
            f"tls-key-file {server.lend(server_key)}",
            f"tls-ca-cert-file {server.lend(authority.path)}",
            "user default off",
            "user ncps on >s3cret ~ncps:* &ncps:* -@all +get +set +del +pexpire +time +eval"
            " +evalsha +publish +subscribe +ping +select +info",
        )
        server.start()
        place = place_of(
            server.port,
            db=3,
            login=Login(username="ncps", password="s3cret"),
            tls=verified_tls(authority.path, own_cert, own_key),
        )
        here = Replica(place, prefix="ncps:lock:", address=self.address, poll=60)
        there = Replica(place, prefix="ncps:lock:", address=self.other_address, poll=60)
        for replica in (here, there):
            await replica.leases.start()
            self.addCleanup(replica.stop)
        self.leases, self.other = here.leases, there.leases
        self.notices, self.other_notices = here.notices, there.notices
