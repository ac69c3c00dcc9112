"""Databases on servers that restart, cut connections, hang, and are away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from ncps.database import accounts, server
from ncps.database.catalog import SqlCatalog
from tests.contract.running import start
from tests.contract.samples import digest_of, entry, key_of, record, stored
from tests.integration.server_case import (
    ServerTestCase,
    mishandled_mariadb,
    mishandled_mysql,
    mishandled_postgresql,
)

reactor = cast("Any", _reactor)

PAUSE_S = 0.02
"""Between two rounds of calls: a load without pauses uses all processors."""


class FaultTests:
    """Calls while their server, which only these tests use, has a fault."""

    async def load(self: Any, is_over: Callable[[], bool]) -> int:
        """Read and write until the end; a call that fails fails the test."""
        done = 0

        async def go_on(number: int) -> None:
            nonlocal done
            at = 0
            while not is_over():
                at += 1
                nar = stored(number, stored_size=at)
                await self.catalog.add_narinfo(entry(number), record(number))
                await self.catalog.mark_stored(nar)
                self.assertEqual(await self.catalog.nar(key_of(number)), nar)
                self.assertEqual(
                    await self.catalog.narinfo(digest_of(number)), (entry(number), nar)
                )
                await self.catalog.totals()
                done += 1
                await deferLater(reactor, PAUSE_S)

        await gatherResults([start(go_on(number)) for number in range(12)], consumeErrors=True)
        return done

    async def under_load(self: Any, mishandle: Callable[[], object]) -> None:
        """Cause a fault of the server under load, and check that the calls continue."""
        # A busy machine needs time to start a server.
        self.patch(server, "PATIENCE_S", 60.0)
        self.database._deadline_s = 120.0
        rounds = 0
        is_over = False

        async def trouble() -> None:
            nonlocal is_over
            try:
                await gatherResults([start(self.catalog.nar(key_of(99))) for _ in range(20)])
                await deferToThread(mishandle)
                for _ in range(20):
                    await self.catalog.mark_stored(stored(99))
            finally:
                is_over = True

        troubled = start(trouble())
        rounds = await self.load(lambda: is_over)
        await troubled
        self.assertGreater(rounds, 12)
        totals = await self.catalog.totals()
        self.assertEqual((totals.narinfos, totals.nars_stored), (12, 13))

    async def test_a_restart_fails_no_call(self: Any) -> None:
        """A server that is stopped and started again only costs time."""

        def restart() -> None:
            self.server.stop()
            self.server.start()

        await self.under_load(restart)

    async def test_a_crash_fails_no_call(self: Any) -> None:
        """Neither does one that crashes and recovers."""

        def crash() -> None:
            self.server.crash()
            self.server.start()

        await self.under_load(crash)

    async def test_killed_connections_fail_no_call(self: Any) -> None:
        """Killed connections, one or all, several times, are replaced."""

        def kill() -> None:
            for _ in range(10):
                self.server.kill_connections(self.name)

        await self.under_load(kill)

    async def test_idle_connections_cost_no_call(self: Any) -> None:
        """After a restart while idle, each connection of the pool is replaced without a failure."""
        barrier = threading.Barrier(4)
        await gatherResults(
            [start(self.database.read(lambda _: barrier.wait(10))) for _ in range(4)]
        )
        self.server.stop()
        self.server.start()
        self.patch(server, "PATIENCE_S", 60.0)
        calls: list[int] = []

        def together(txn: Any) -> None:
            calls.append(1)
            accounts.read(txn)

        await gatherResults([start(self.database.write(together)) for _ in range(8)])
        self.assertEqual(len(calls), 8)

    async def test_a_server_that_is_away_is_said_so_soon(self: Any) -> None:
        """Calls fail after a while, then immediately, and succeed when it is back."""
        self.patch(server, "PATIENCE_S", 2.0)
        await self.catalog.mark_stored(stored(1))
        self.server.stop()
        try:
            error = await self.unavailable(self.catalog.nar(key_of(1)), within_s=6.0)
            self.assertEqual(error.retry_after, server.RETRY_AFTER_S)
            for ask in (
                partial(self.catalog.nar, key_of(1)),
                partial(self.catalog.mark_stored, stored(2)),
            ):
                error = await self.unavailable(ask(), within_s=1.5)
                self.assertEqual(error.retry_after, server.RETRY_AFTER_S)
        finally:
            self.server.start()
        self.assertEqual(await self.catalog.nar(key_of(1)), stored(1))
        await gatherResults([start(self.catalog.nar(key_of(1))) for _ in range(20)])

    async def test_news_of_long_ago_say_nothing(self: Any) -> None:
        """An old failure of a server fails no later call."""
        self.patch(server, "PATIENCE_S", 0.2)
        self.server.stop()
        try:
            await self.unavailable(self.catalog.nar(key_of(1)), within_s=4.0)
        finally:
            self.server.start()
        self.patch(server, "STALE_S", 0.0)
        await gatherResults([start(self.catalog.nar(key_of(1))) for _ in range(20)])

    async def test_a_server_that_hangs_delays_requests_only_briefly(self: Any) -> None:
        """Calls end at their deadline, and no connection is lost for ever."""
        database = self.opened(deadline_s=30.0)
        catalog = SqlCatalog(database)
        await catalog.mark_stored(stored(1))  # the first connection is slow
        database._deadline_s = 1.0
        self.server.freeze()
        try:
            calls = [start(catalog.mark_stored(stored(number))) for number in range(8)]
            for call in calls:
                error = await self.unavailable(call, within_s=3.0)
                self.assertTrue(error.timed_out)
                self.assertIsNotNone(error.retry_after)
        finally:
            self.server.thaw()
        self.patch(server, "STALE_S", 0.0)
        database._deadline_s = 30.0
        calls = [start(catalog.mark_stored(stored(number))) for number in range(8)]
        await gatherResults(calls, consumeErrors=True)
        self.assertEqual((await catalog.totals()).nars_stored, 8)

    async def test_closing_waits_for_no_server_that_hangs(self: Any) -> None:
        """The program can end while the database hangs.

        All calls have a connection: one that is being made waits for its own deadline.
        """
        self.patch(server, "CLOSE_S", 0.2)
        database = self.opened(size=2)
        catalog = SqlCatalog(database)
        both = threading.Barrier(2)
        await gatherResults([start(database.point(lambda _: both.wait(30))) for _ in range(2)])
        self.server.freeze()
        try:
            calls = [start(catalog.nar(key_of(number))) for number in range(8)]
            since = reactor.seconds()
            reactor.callLater(0.1, database.close)
            for call in calls:
                await self.unavailable(call, within_s=5.0)
            self.assertLess(reactor.seconds() - since, 5.0)
        finally:
            self.server.thaw()


class PostgreSQLFaultTests(FaultTests, ServerTestCase):
    engine = staticmethod(mishandled_postgresql)


class MariaDBFaultTests(FaultTests, ServerTestCase):
    engine = staticmethod(mishandled_mariadb)


class MySQLFaultTests(FaultTests, ServerTestCase):
    engine = staticmethod(mishandled_mysql)
