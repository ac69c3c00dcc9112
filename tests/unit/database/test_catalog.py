"""SqlCatalog: its calls of the database, and where they run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ncps.database.catalog import SqlCatalog
from ncps.database.keyed_read import KeyedRead
from ncps.database.pool import Database
from ncps.nix.storepath import StorePath
from ncps.ports.catalog import LONGEST_AMONG
from tests.fakes.samples import sample


class OneRow:
    """A transaction in which every statement finds one row."""

    def __init__(self, row: tuple[object, ...]) -> None:
        self._row = row

    def execute(self, _statement: str, _values: object) -> OneRow:
        return self

    def fetchone(self) -> tuple[object, ...]:
        return self._row

    def fetchall(self) -> list[tuple[object, ...]]:
        text = self._row[1]
        is_long = isinstance(text, str) and len(text) > LONGEST_AMONG
        return [(self._row[0], None, *self._row[2:]) if is_long else self._row]


class LoggedDatabase:
    """A database of one row that records its calls."""

    def __init__(self, row: tuple[object, ...]) -> None:
        self.log: list[str] = []
        self._txn = OneRow(row)

    async def point(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.log.append("point")
        return function(self._txn, *args, **kwargs)

    async def look_up(self, lookup: KeyedRead[Any, Any], key: Any) -> Any:
        self.log.append("point")
        return lookup.one(self._txn, key)

    async def read(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.log.append("read")
        return function(self._txn, *args, **kwargs)


class NarInfoTests(SynchronousTestCase):
    def asked(self, references: int) -> list[str]:
        """Return the calls of the database for a narinfo with `references` references."""
        paths = [StorePath(f"{n:032d}", "reference") for n in range(references)]
        narinfo = evolve(sample(size=10).narinfo, references=paths)
        digest = narinfo.store_path.digest
        entry = (digest, narinfo.render().decode(), "http://u", "nar/x", "", 0, None, None)
        nar = (
            "1" * 52,
            "xz",
            "xz",
            "",
            None,
            None,
            None,
            None,
            "",
            "",
            None,
            None,
            None,
            None,
            "",
            None,
            None,
            None,
            None,
        )
        database = LoggedDatabase((*entry, *nar))
        catalog = SqlCatalog(cast("Database", database))
        finding = Deferred.fromCoroutine(catalog.narinfo(digest))
        found = self.successResultOf(finding)
        assert found is not None
        self.assertEqual(narinfo, found[0].narinfo)
        return database.log

    def test_long_narinfos_are_read_in_a_thread(self) -> None:
        """Short narinfos are read on the reactor's thread, which is faster."""
        self.assertEqual(["point"], self.asked(10))
        self.assertEqual(["point", "read"], self.asked(LONGEST_AMONG // 40))
