"""SQLite databases for tests: a fresh file, and a dialect that waits for no lock."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.trial.unittest import TestCase

from ncps.database import migrate
from ncps.database.dialects.sqlite import SQLite
from ncps.database.local import LocalDatabase
from ncps.observe.metrics import Metrics

reactor = cast("Any", _reactor)


def stored_rows(txn: Any) -> int:
    """Return the number of stored NARs, by their rows."""
    count = txn.execute("SELECT COUNT(*) FROM nar_files WHERE stored_at IS NOT NULL").fetchone()[0]
    return int(count)


class Narrow(SQLite):
    """SQLite that never waits for a lock, with pragmas of the test."""

    def __init__(self, path: Path, *pragmas: str) -> None:
        super().__init__(path)
        self.pragmas = pragmas

    @property
    def arguments(self) -> dict[str, Any]:
        return super().arguments | {"timeout": 0.0}

    def set_up(self, connection: Any, *, read_only: bool) -> None:
        super().set_up(connection, read_only=read_only)
        for pragma in self.pragmas:
            connection.execute(f"PRAGMA {pragma}")


class SqliteTestCase(TestCase):
    """A fresh database file."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute() / "db.sqlite"
        self.dialect = SQLite(self.path)
        migrate.up(self.dialect)
        self.metrics = Metrics()

    def opened(self, dialect: SQLite) -> LocalDatabase:
        database = LocalDatabase(reactor, dialect, self.metrics)
        database.open()
        self.addCleanup(database.close)
        return database
