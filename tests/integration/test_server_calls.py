"""Calls of databases on servers: single, concurrent and slow ones."""

from __future__ import annotations

import threading
from typing import Any, cast

from attrs import evolve
from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.threads import deferToThread

from ncps.database import accounts, connections, nars, server
from ncps.database.catalog import SqlCatalog
from ncps.database.keyed_read import KeyedRead
from ncps.errors import Busy, Corrupt, StorageFull
from tests.contract.running import start
from tests.contract.samples import EARLY, digest_of, entry, key_of, later, record, stored
from tests.fakes.metrics import observed
from tests.integration.databases import database_of, dialect_of
from tests.integration.server_case import ServerTestCase
from tests.integration.servers import shared

reactor = cast("Any", _reactor)


class CallTests:
    """Transactions on a server."""

    async def test_a_failing_write_leaves_nothing(self: Any) -> None:
        """A failed transaction is rolled back."""

        def failing(txn: Any) -> None:
            nars.mark_stored(txn, stored(1))
            raise Corrupt("no")

        with self.assertRaises(Corrupt):
            await self.database.write(failing)
        self.assertIsNone(await self.database.read(nars.find, key_of(1)))

    async def test_a_cancelled_write_is_done_nevertheless(self: Any) -> None:
        """Cancelling the caller does not stop the transaction."""
        begun, go = threading.Event(), threading.Event()

        def slow(txn: Any) -> None:
            begun.set()
            go.wait(10)
            nars.mark_stored(txn, stored(1))

        write = start(self.database.write(slow))
        await deferToThread(begun.wait, 10)
        write.cancel()
        with self.assertRaises(CancelledError):
            await write
        go.set()
        self.database.close()
        self.assertIsNotNone(await self.opened().point(nars.find, key_of(1)))

    async def test_readers_cannot_write(self: Any) -> None:
        """The engine refuses a write in a reading function."""
        with self.assertRaises(StorageFull):
            await self.database.read(nars.touch, {key_of(1): EARLY})

    async def test_a_read_sees_one_state(self: Any) -> None:
        """The second half of a read does not see a commit in its middle."""
        between, committed = threading.Event(), threading.Event()

        def twice(txn: Any) -> tuple[int, int]:
            first = accounts.read(txn).nars
            between.set()
            committed.wait(10)
            return first, accounts.read(txn).nars

        read = start(self.database.read(twice))
        await deferToThread(between.wait, 10)
        await self.database.write(nars.mark_stored, stored(1))
        committed.set()
        self.assertEqual(await read, (0, 0))

    async def test_every_call_is_timed(self: Any) -> None:
        """The metrics get each call with its kind, also failed ones."""
        await self.database.point(nars.find, key_of(1))
        await self.database.read(nars.find, key_of(1))
        await self.database.write(nars.mark_verified, stored(1, verified_at=EARLY))
        with self.assertRaises(ZeroDivisionError):
            await self.database.read(lambda _txn: 1 // 0)
        kinds = ("point", "read", "write")
        found = [observed(self.metrics.database_seconds(kind))[0] for kind in kinds]
        self.assertEqual(found, [1, 2, 1])

    async def test_impossible_facts_are_corrupt(self: Any) -> None:
        """Sizes below zero or too large, and bytes without a size, are never recorded."""
        for nar in (
            stored(1, file_size=-1),
            stored(1, nar_size=2**63),
            evolve(stored(1), stored_size=None),
            stored(1, encoding="x" * 17),
        ):
            with self.assertRaises(Corrupt):
                await self.catalog.mark_stored(nar)
        self.assertIsNone(await self.catalog.nar(key_of(1)))

    async def test_calls_are_bounded(self: Any) -> None:
        """Calls beyond the limit are refused immediately."""
        self.patch(server, "MAX_CALLS", 3)
        go = threading.Event()
        waiting = [start(self.database.read(lambda _txn: go.wait(10))) for _ in range(3)]
        with self.assertRaises(Busy):
            await self.database.point(nars.find, key_of(1))
        go.set()
        await gatherResults(waiting)
        await self.database.point(nars.find, key_of(1))

    async def test_reads_by_key_at_one_time_are_one_call(self: Any) -> None:
        """Thirty-two keys are one statement in one thread, and one call of the metric."""
        await self.database.write(nars.mark_stored, stored(1))
        before = observed(self.metrics.database_seconds("point"))[0]
        catalog = SqlCatalog(self.database)
        found = await gatherResults([start(catalog.nar(key_of(number))) for number in range(32)])
        self.assertEqual([number for number, nar in enumerate(found) if nar is not None], [1])
        self.assertEqual(observed(self.metrics.database_seconds("point"))[0] - before, 1)

    async def test_a_damaged_row_is_an_error_of_its_own_readers(self: Any) -> None:
        """Other readers of the same statement get their rows."""
        catalog = SqlCatalog(self.database)
        for number in (1, 2):
            await catalog.add_narinfo(entry(number), record(number))
        damage = "UPDATE narinfos SET narinfo = 'x' WHERE hash = ?"
        await self.database.write(lambda txn: txn.execute(damage, (digest_of(1),)) and None)
        good = start(catalog.narinfo(digest_of(2)))
        await self.unavailable(catalog.narinfo(digest_of(1)), within_s=5.0)
        self.assertEqual((await good), (entry(2), record(2)))

    async def test_a_statement_that_fails_is_an_error_of_each_reader(self: Any) -> None:
        """Each reader gets one of our errors; the next reads succeed."""

        def rows(txn: Any, keys: Any) -> dict[int, int]:
            if 13 in keys:
                txn.execute("SELECT this FROM nowhere")
            return {key: key for key in keys}

        lookup: KeyedRead[int, int] = KeyedRead(rows, lambda row: row)
        asked = [start(self.database.look_up(lookup, key)) for key in (12, 13, 14)]
        for one in asked:
            await self.unavailable(one, within_s=5.0)
        self.assertEqual(await self.database.look_up(lookup, 12), 12)

    async def test_a_closed_database_is_unavailable(self: Any) -> None:
        """Before the start and after the end every call fails immediately."""
        database = database_of(reactor, self.dialect)
        catalog = SqlCatalog(database)
        for _ in range(2):
            for call in (catalog.nar(key_of(1)), catalog.totals(), catalog.mark_stored(stored(1))):
                await self.unavailable(call, within_s=1.0)
            database.open()
            await catalog.nar(key_of(1))
            database.close()
            database.close()

    async def test_spare_connections_are_closed(self: Any) -> None:
        """After a burst only the configured number of connections stays."""
        database = self.opened(size=6, idle=2)
        barrier = threading.Barrier(6)
        await gatherResults([start(database.read(lambda _: barrier.wait(10))) for _ in range(6)])
        self.assertEqual(len(database._pool.connections), 2)
        for _ in range(3):
            await database.point(nars.find, key_of(1))
        self.assertLessEqual(len(database._pool.connections), 3)

    async def test_long_idle_connections_are_made_again(self: Any) -> None:
        """A connection that a firewall may have dropped is not used again."""
        ask = "SELECT pg_backend_pid()" if self.dialect.name == "postgresql" else None
        statement = ask or "SELECT CONNECTION_ID()"
        database = self.opened(size=1)

        def number(txn: Any) -> int:
            return int(txn.execute(statement).fetchone()[0])

        first = await database.point(number)
        self.assertEqual(await database.point(number), first)
        self.patch(connections, "MAX_IDLE_S", 0.0)
        self.assertNotEqual(await database.point(number), first)


PATIENT_S = 100.0
"""Longest time of a call that waits for hundreds of others, on a machine that has other work."""


class RaceTests:
    """Two replicas on one database."""

    def two_catalogs(self: Any) -> tuple[SqlCatalog, SqlCatalog]:
        """Return the catalogs of both replicas."""
        one, other = (SqlCatalog(self.opened(deadline_s=PATIENT_S)) for _ in range(2))
        return one, other

    async def test_two_replicas_that_learn_of_the_same_agree(self: Any) -> None:
        """One row of each thing remains, in any order of the writers, and no writer fails."""
        one, other = self.two_catalogs()
        for catalogs in ((one, other), (other, one)):
            writes = [
                start(catalog.add_narinfo(entry(number), record(number)))
                for number in range(40)
                for catalog in catalogs
            ]
            writes += [
                start(catalog.mark_stored(stored(number)))
                for number in range(40)
                for catalog in catalogs
            ]
            await gatherResults(writes, consumeErrors=True)
        totals = await self.catalog.totals()
        self.assertEqual((totals.narinfos, totals.nars_stored), (40, 40))
        for number in range(40):
            found = await other.narinfo(digest_of(number))
            self.assertEqual(found, (entry(number), stored(number)))

    async def test_everything_at_once_on_few_rows(self: Any) -> None:
        """Concurrent adding, storing, missing, touching and forgetting all succeed."""
        one, other = self.two_catalogs()
        calls: list[Deferred[Any]] = []
        for round_ in range(8):
            for catalog in (one, other):
                for number in range(4):
                    calls += [
                        start(catalog.add_narinfo(entry(number), record(number))),
                        start(catalog.mark_stored(stored(number, file_size=None))),
                        start(catalog.mark_missing(key_of(number))),
                        start(catalog.forget_narinfo(digest_of(number))),
                        start(catalog.forget_nar(key_of(number))),
                    ]
                order = range(4) if catalog is other else reversed(range(4))
                numbers = list(order)
                calls.append(
                    start(
                        catalog.touch(
                            {digest_of(number): later(round_) for number in numbers},
                            {key_of(number): later(round_) for number in numbers},
                        )
                    )
                )
        await gatherResults(calls, consumeErrors=True)
        for number in range(4):
            found = await self.catalog.narinfo(digest_of(number))
            self.assertTrue(found is None or found[0] == entry(number) or found[0].last_used_at)

    async def test_a_deadlock_is_tried_again(self: Any) -> None:
        """Both transactions of a deadlock are committed in the end."""
        for number in (1, 2):
            await self.catalog.mark_stored(stored(number))
        met = threading.Barrier(2)
        tries: list[int] = []

        def crossing(txn: Any, first: int, second: int) -> None:
            tries.append(first)
            nars.mark_verified(txn, stored(first, verified_at=later(first)))
            if len(tries) <= 2:
                met.wait(10)
            nars.mark_verified(txn, stored(second, verified_at=later(first)))

        await gatherResults(
            [
                start(self.database.write(crossing, 1, 2)),
                start(self.database.write(crossing, 2, 1)),
            ],
            consumeErrors=True,
        )
        self.assertEqual(len(tries), 3)
        found = await self.catalog.nar(key_of(1))
        self.assertIn(found.verified_at, {later(1), later(2)})
        self.assertEqual((await self.catalog.nar(key_of(2))).verified_at, found.verified_at)

    strict: tuple[tuple[str, ...], ...]
    """Begins transactions of which the server refuses those that are not serializable."""

    async def test_a_transaction_that_cannot_be_serialized_is_tried_again(self: Any) -> None:
        """If two read the same and then write it, the later one is repeated."""
        for begin in self.strict:
            self.patch(self.dialect, "begin_write", begin)
            await self.catalog.mark_stored(stored(1))
            met = threading.Barrier(2)
            tries: list[int] = []

            def racing(
                txn: Any, at: int, *, tries: list[int] = tries, met: threading.Barrier = met
            ) -> None:
                tries.append(at)
                self.assertIsNotNone(nars.find(txn, key_of(1)))
                if len(tries) <= 2:
                    met.wait(10)
                nars.mark_verified(txn, stored(1, verified_at=later(at)))

            both = [start(self.database.write(racing, at)) for at in (1, 2)]
            await gatherResults(both, consumeErrors=True)
            self.assertEqual(len(tries), 3, begin)
            found = await self.catalog.nar(key_of(1))
            self.assertEqual(found.verified_at, later(tries[-1]), begin)


class SlowTests:
    """Slow statements."""

    session: str
    """A statement that returns the number of the connection."""
    sleep: str
    """A statement that takes half a minute."""

    async def test_a_statement_that_takes_too_long_is_ended_by_the_server(self: Any) -> None:
        """It is not repeated, and no connection is lost."""
        url = self.server.url(self.name)
        database = database_of(reactor, dialect_of(url, statement_timeout_s=1.0), size=1)
        database.open()
        self.addCleanup(database.close)
        tries: list[int] = []

        def session(txn: Any) -> int:
            number: int = txn.execute(self.session).fetchone()[0]
            return number

        def slow(txn: Any) -> None:
            tries.append(1)
            txn.execute(self.sleep)

        before = await database.point(session)
        for call in (database.point, database.read, database.write):
            error = await self.unavailable(call(slow), within_s=8.0)
            self.assertTrue(error.timed_out)
        self.assertEqual(len(tries), 3)
        self.assertEqual(await database.point(session), before)


class PostgreSQLCallTests(CallTests, RaceTests, SlowTests, ServerTestCase):
    engine = staticmethod(shared.postgresql)
    strict = (("BEGIN ISOLATION LEVEL REPEATABLE READ",), ("BEGIN ISOLATION LEVEL SERIALIZABLE",))
    session = "SELECT pg_backend_pid()"
    sleep = "SELECT pg_sleep(30)"


class MariaDBCallTests(CallTests, RaceTests, SlowTests, ServerTestCase):
    engine = staticmethod(shared.mariadb)
    strict = (
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "START TRANSACTION"),
        (
            "SET SESSION innodb_snapshot_isolation = ON",
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            "START TRANSACTION",
        ),
    )
    session = "SELECT CONNECTION_ID()"
    sleep = "SELECT SLEEP(30)"


class MySQLCallTests(CallTests, RaceTests, SlowTests, ServerTestCase):
    engine = staticmethod(shared.mysql)
    strict = (("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "START TRANSACTION"),)
    session = "SELECT CONNECTION_ID()"
    # A SLEEP beyond its time succeeds with another result; the next row fails.
    sleep = "SELECT SLEEP(30) FROM (SELECT 1 UNION ALL SELECT 2) AS two"
