"""The lock on an SQLite file, which only one daemon at a time may use."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ncps.aio.lockfile import LockFile

_OTHER: Final = "a database of its own by cache-database-url"


class DatabaseLock(LockFile):
    """The lock file beside an SQLite database.

    A daemon holds it from before the migrations until after its last write.
    """

    def __init__(self, database: Path) -> None:
        path = database.with_name(database.name + ".lock")
        super().__init__(path, f"the database {database}", _OTHER)
