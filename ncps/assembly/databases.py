"""The database of the catalog, as the settings name it."""

from __future__ import annotations

from typing import Any

from ncps.database import migrate
from ncps.database.dialects.base import Dialect
from ncps.database.dialects.sqlite import SQLite
from ncps.database.local import LocalDatabase
from ncps.database.lock import DatabaseLock
from ncps.database.pool import Database, Observer
from ncps.settings.schema.tree import Settings


def dialect(settings: Settings) -> Dialect:
    """Make the dialect of the database; nothing is opened. Refused if its driver is missing."""
    where = settings.cache.database_url
    if where.is_file:
        return SQLite(where.path)
    from ncps.assembly.database_servers import server_dialect  # noqa: PLC0415 - SQLite has no use

    return server_dialect(settings)


def database(reactor: Any, settings: Settings, observe: Observer) -> Database:
    """Make the database; the service opens and closes it. Refused if its driver is missing."""
    where = settings.cache.database_url
    if where.is_file:
        return LocalDatabase(reactor, SQLite(where.path), observe)
    from ncps.assembly.database_servers import server_database  # noqa: PLC0415 - as above

    return server_database(reactor, settings, observe)


def database_lock(settings: Settings) -> DatabaseLock | None:
    """The lock of a database that is for one daemon alone; None for one that is for many."""
    where = settings.cache.database_url
    return DatabaseLock(where.path) if where.is_file else None


def remake(settings: Settings) -> None:
    """Give a worker's SQLite file its schema again, if it was removed since the supervisor began.

    Blocks. Refused, StorageFull, Unavailable.
    """
    engine = dialect(settings)
    if isinstance(engine, SQLite):
        migrate.up(engine)
