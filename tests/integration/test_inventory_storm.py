"""After many concurrent writers the counter agrees with the rows."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import gatherResults
from twisted.trial.unittest import TestCase

from ncps.database import migrate
from ncps.database.catalog import SqlCatalog
from ncps.database.dialects.sqlite import SQLite
from ncps.database.local import LocalDatabase
from ncps.errors import Conflict
from ncps.observe.metrics import Metrics
from tests.contract.running import Contract, start
from tests.contract.samples import digest_of, entry, key_of, later, narinfo, record, stored
from tests.integration.databases import database_of, dialect_of
from tests.integration.servers import shared
from tests.integration.servers.database import DatabaseServer

reactor = cast("Any", _reactor)

SEED = 4711
WRITERS = 8
ROUNDS = 40
NARS = 12


class StormContract(Contract):
    """Eight writers change the same few rows in every order."""

    catalog: SqlCatalog

    async def test_the_counter_is_right_after_a_storm(self) -> None:
        """Concurrent storing, evicting, using and forgetting neither fails nor miscounts."""
        dice = random.Random(SEED)
        writers = [self.write(random.Random(dice.random())) for _ in range(WRITERS)]
        self.refused = self.evicted = self.forgotten = 0
        self.off: list[int] = []
        await gatherResults([start(writer) for writer in writers], consumeErrors=True)
        size = await self.catalog.stored_bytes()
        self.off.append(await self.catalog.recount())
        self.assertEqual(set(self.off), {0}, "bytes the counter was off")
        rows = [await self.catalog.nar(key_of(number)) for number in range(NARS)]
        self.assertEqual(size, sum(row.stored_size or 0 for row in rows if row is not None))
        self.assertGreater(self.evicted + self.refused, 0, "too calm a storm")

    async def write(self, dice: random.Random) -> None:
        for _ in range(ROUNDS):
            await dice.choice(tuple(self.deeds(dice)))()

    def deeds(self, dice: random.Random) -> Iterator[Callable[[], Any]]:
        number, size, moment = dice.randrange(NARS), dice.randrange(1, 10**6), later(dice.random())
        other = dice.randrange(NARS)
        info = entry(number, narinfo=narinfo(number, url=key_of(other).url))

        async def store() -> None:
            fence = dice.choice((0, dice.randrange(1, 50)))
            try:
                await self.catalog.mark_stored(
                    stored(number, stored_size=size, stored_at=moment), fence
                )
            except Conflict:
                self.refused += 1

        async def evict() -> None:
            found = await self.catalog.idle(later(60), dice.randrange(1, NARS))
            dice.shuffle(found)
            self.evicted += len(await self.catalog.evict(found))

        async def forget() -> None:
            found = await self.catalog.forget_unused(later(60), later(0), 3)
            self.forgotten += len(found.keys)

        async def recount() -> None:
            self.off.append(await self.catalog.recount())

        def touch() -> Any:
            numbers = dice.sample(range(NARS), 5)
            times: list[datetime] = [later(dice.random()) for _ in numbers]
            return self.catalog.touch(
                {digest_of(each): at for each, at in zip(numbers, times, strict=True)},
                {key_of(each): at for each, at in zip(numbers, times, strict=True)},
            )

        yield store
        yield store
        yield evict
        yield forget
        yield touch
        yield lambda: self.catalog.add_narinfo(info, record(other))
        yield lambda: self.catalog.add_narinfo(info, record(other))
        yield lambda: self.catalog.mark_missing(key_of(number))
        yield lambda: self.catalog.forget_nar(key_of(number))
        yield lambda: self.catalog.forget_narinfo(digest_of(number))
        yield recount


class SQLiteStormTests(StormContract, TestCase):
    """SQLite."""

    def setUp(self) -> None:
        super().setUp()
        path = Path(self.mktemp())
        path.mkdir()
        dialect = SQLite(path / "db.sqlite")
        migrate.up(dialect)
        database = LocalDatabase(reactor, dialect, Metrics())
        database.open()
        self.addCleanup(database.close)
        self.catalog = SqlCatalog(database)


class ServerStorm(StormContract):
    """A server, through eight connections."""

    server: Callable[[], DatabaseServer]

    def setUp(self) -> None:
        super().setUp()
        dialect = dialect_of(type(self).server().new_database())
        migrate.up(dialect)
        database = database_of(reactor, dialect, size=WRITERS, idle=WRITERS)
        database.open()
        self.addCleanup(database.close)
        self.catalog = SqlCatalog(database)


class PostgreSQLStormTests(ServerStorm, TestCase):
    """PostgreSQL."""

    server = staticmethod(shared.postgresql)


class MariaDBStormTests(ServerStorm, TestCase):
    """MariaDB."""

    server = staticmethod(shared.mariadb)


class MySQLStormTests(ServerStorm, TestCase):
    """MySQL."""

    server = staticmethod(shared.mysql)
