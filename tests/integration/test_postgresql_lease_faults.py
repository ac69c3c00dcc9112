"""Leases in a real PostgreSQL with faults."""

from __future__ import annotations

import contextlib
import time

from twisted.internet import reactor
from twisted.internet.task import deferLater

from ncps.errors import Refused, Unavailable
from ncps.ports import Notice
from tests.contract.notices import Subscriber
from tests.integration.lease_case import LeaseCase, until
from tests.integration.postgresql_replica import Replica, make_tables
from tests.integration.processes import spawn
from tests.integration.servers import shared
from tests.integration.servers.postgresql import PostgreSQL

HOLD = """
import sys
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from tests.integration.postgresql_replica import Replica

async def main():
    replica = Replica(sys.stdin.readline().strip(), address="http://victim")
    await replica.leases.start()
    lease = await replica.leases.try_hold("a")
    print(lease.fence, flush=True)

reactor.callWhenRunning(lambda: Deferred.fromCoroutine(main()))
reactor.run()
"""


class PostgresCase(LeaseCase):
    timeout = 120

    def server(self) -> tuple[PostgreSQL, str]:
        server = PostgreSQL()
        self.addCleanup(server.close)
        server.start()
        url = server.new_database()
        make_tables(url)
        return server, url

    def database(self) -> str:
        url = shared.postgresql().new_database()
        make_tables(url)
        return url

    async def running(self, url: str, **more: object) -> Replica:
        replica = Replica(url, **more)  # type: ignore[arg-type]
        self.addCleanup(replica.stop)
        await replica.leases.start()
        return replica

    def cut(self, url: str) -> int:
        return shared.postgresql().kill_connections(url.rpartition("/")[2])


class LossTests(PostgresCase):
    async def test_a_cut_session_loses_its_leases_at_once(self) -> None:
        """All of them are lost without a query; a new session follows by itself."""
        url = self.database()
        replica = await self.running(url)
        leases = [await self.take(replica, name) for name in "ab"]
        self.assertFalse(any(lease.is_lost for lease in leases))
        self.assertEqual(self.cut(url), 1)
        await until(lambda: all(lease.is_lost for lease in leases))
        await until(lambda: not replica.leases.trouble)
        for lease in leases:
            await lease.release()
        again = await self.take(replica)
        self.assertFalse(again.is_lost)
        self.assertGreater(again.fence, leases[0].fence)
        await again.release()

    async def test_leases_of_a_cut_session_go_to_waiters(self) -> None:
        """Another process gets the lease within one poll."""
        url = self.database()
        here = await self.running(url)
        lease = await self.take(here)
        there = await self.running(url)
        waiter = self.waiting(there)
        await deferLater(reactor, 0)
        rows = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
        shared.postgresql().execute(rows, url.rpartition("/")[2])
        self.assertGreater(await waiter, lease.fence)
        while not lease.is_lost:  # the two get the news in any order
            await deferLater(reactor, 0.01)

    async def test_a_killed_process_frees_its_lease(self) -> None:
        """The lease is free immediately; nobody gets its address after that."""
        url = self.database()
        replica = await self.running(url)
        process = spawn(HOLD)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        process.stdin.write(url + "\n")
        process.stdin.flush()
        fence = int(process.stdout.readline())
        self.assertEqual(await replica.leases.holder("a"), "http://victim")
        waiter = self.waiting(replica)
        process.kill()
        self.assertGreater(await waiter, fence)
        self.assertEqual(await replica.leases.holder("a"), "")

    async def test_the_server_dies_under_holders_and_waiters(self) -> None:
        """Leases are lost, waiters get errors, and all works again when the server is back."""
        server, url = self.server()
        here, there = await self.running(url), await self.running(url, may_degrade=True)
        lease = await self.take(here)
        waiter = self.waiting(here, "a")
        server.crash()
        await until(lambda: lease.is_lost)
        await until(lambda: here.leases.trouble and there.leases.is_degraded)
        await self.assert_raises(Unavailable, here.leases.try_hold("b"))
        own = await self.take(there)
        self.assertGreater(own.fence, lease.fence)
        await own.release()
        await lease.release()
        await self.assert_raises(Unavailable, waiter)
        server.start()
        await until(lambda: not here.leases.trouble and not there.leases.trouble)
        again = await self.take(here)
        self.assertGreater(again.fence, own.fence)
        await again.release()

    async def test_a_stalled_server(self) -> None:
        """Leases are lost after their time, later calls fail immediately; then all recovers."""
        server, url = self.server()
        replica = await self.running(url, ttl=3.0)
        lease = await self.take(replica)
        server.freeze()
        began = time.monotonic()
        with contextlib.suppress(Unavailable):
            await replica.leases.try_hold("b")
        await until(lambda: lease.is_lost)
        self.assertLess(time.monotonic() - began, 3.5)
        await until(lambda: replica.leases.trouble)
        began = time.monotonic()
        for number in range(100):
            await self.assert_raises(Unavailable, replica.leases.try_hold(str(number)))
        self.assertLess(time.monotonic() - began, 0.5)
        server.thaw()
        await until(lambda: not replica.leases.trouble)
        await lease.release()
        await (await self.take(replica, "b")).release()

    async def test_a_lease_without_questions_stays(self) -> None:
        """A held lease needs no calls: the renewal runs in the background."""
        replica = await self.running(self.database(), ttl=0.6)
        lease = await self.take(replica)
        await deferLater(reactor, 1.5)
        self.assertFalse(lease.is_lost)
        await lease.release()

    async def test_notices_after_a_gap(self) -> None:
        """A subscriber that was cut off gets a gap, then notices again."""
        url = self.database()
        here, there = await self.running(url), await self.running(url)
        subscriber = Subscriber()
        there.notices.subscribe(subscriber)
        self.cut(url)
        await subscriber.receives(Notice("gap"))
        await until(lambda: not here.leases.trouble)
        await here.notices.publish(Notice("gap"))
        await here.notices.publish(Notice("nar", "x" * 600))
        await here.notices.publish(Notice("nar", "x"))
        await subscriber.receives(Notice("nar", "x"))
        self.assertEqual(subscriber.received, [Notice("gap"), Notice("nar", "x")])

    async def test_numbers_survive_the_table(self) -> None:
        """Numbers do not start again after the table was emptied.

        A number ahead of the clock continues.
        """
        url = self.database()
        name = url.rpartition("/")[2]
        replica = await self.running(url)
        first = await self.take(replica)
        await first.release()
        shared.postgresql().execute("DELETE FROM lease_fence", name)
        second = await self.take(replica)
        self.assertGreater(second.fence, first.fence)
        await second.release()
        shared.postgresql().execute("UPDATE lease_fence SET fence = 10::numeric ^ 18", name)
        third = await self.take(replica)
        self.assertEqual(third.fence, 10**18 + 1)
        await third.release()

    async def test_a_failure_after_the_lock(self) -> None:
        """If the number is not available, the lock is released."""
        url = self.database()
        name = url.rpartition("/")[2]
        replica = await self.running(url)
        shared.postgresql().execute("ALTER TABLE lease_fence RENAME TO gone", name)
        await self.assert_raises(Unavailable, replica.leases.try_hold("a"))
        locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        self.assertEqual(shared.postgresql().execute(locks, name), [(0,)])
        shared.postgresql().execute("ALTER TABLE gone RENAME TO lease_fence", name)
        await (await self.take(replica)).release()


class StartTests(PostgresCase):
    async def test_no_server_at_the_start(self) -> None:
        """The start succeeds, attempts fail immediately with the reason, and it recovers."""
        server, url = self.server()
        server.stop()
        replica = await self.running(url)
        self.assertIn("refused", replica.leases.trouble)
        subscriber = Subscriber()
        replica.notices.subscribe(subscriber)
        await self.assert_raises(Unavailable, replica.leases.try_hold("a"))
        await self.assert_raises(Unavailable, replica.leases.holder("a"))
        server.start()
        await until(lambda: not replica.leases.trouble)
        await (await self.take(replica)).release()
        self.assertEqual(subscriber.received, [Notice("gap")])

    async def test_wrong_password(self) -> None:
        """It is a start-up error, and nothing runs afterwards."""
        url = self.database().replace("p%25w%3A%2F%40%20rd", "wr0ng")
        replica = Replica(url)
        self.addCleanup(replica.stop)
        await self.assert_raises(Refused, replica.leases.start())

    async def test_leftovers_of_dead_sessions_are_swept(self) -> None:
        """The table of sessions has only living ones."""
        url = self.database()
        name = url.rpartition("/")[2]
        shared.postgresql().execute("INSERT INTO lease_sessions VALUES (-1, 'http://dead')", name)
        await self.running(url, address="http://here")
        rows = shared.postgresql().execute("SELECT address FROM lease_sessions", name)
        self.assertEqual(rows, [("http://here",)])
