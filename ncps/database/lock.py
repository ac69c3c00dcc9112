"""The lock on an SQLite file: one daemon at a time; other databases are made for many."""

from __future__ import annotations

from pathlib import Path

from ncps.aio.lockfile import LockFile


class DatabaseLock(LockFile):
    """Held from before the migrations to after the last write; lies beside the database file."""

    def __init__(self, database: Path) -> None:
        path = database.with_name(database.name + ".lock")
        super().__init__(path, f"the database {database}")
