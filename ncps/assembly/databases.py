"""The database of the catalog, as the settings name it."""

from __future__ import annotations

from typing import Any

from ncps.assembly.storage import most_together
from ncps.database import migrate
from ncps.database.dialects.base import Dialect
from ncps.database.dialects.sqlite import SQLite
from ncps.database.local import LocalDatabase
from ncps.database.lock import DatabaseLock
from ncps.database.pool import Database
from ncps.observe.metrics import Metrics
from ncps.settings.schema.tree import Settings


def dialect(settings: Settings) -> Dialect:
    """Make the dialect of the database; open nothing. Raises Refused if its driver is missing."""
    where = settings.cache.database_url
    if where.is_file:
        return SQLite(where.path)
    from ncps.assembly.database_servers import server_dialect  # noqa: PLC0415 - only for servers

    return server_dialect(settings)


def database(reactor: Any, settings: Settings, metrics: Metrics) -> Database:
    """Make the database; `Runtime` opens and closes it. Raises Refused if its driver is missing."""
    where = settings.cache.database_url
    if where.is_file:
        return LocalDatabase(reactor, SQLite(where.path), metrics, most=most_together(settings))
    from ncps.assembly.database_servers import server_database  # noqa: PLC0415 - as above

    return server_database(reactor, settings, metrics)


def database_lock(settings: Settings) -> DatabaseLock | None:
    """Return the lock of a database for one daemon only; None for a database server."""
    where = settings.cache.database_url
    return DatabaseLock(where.path) if where.is_file else None


def remake(settings: Settings) -> None:
    """Make the schema again for a worker, if its SQLite file was removed after the start.

    Blocks. Raises Refused, StorageFull or Unavailable if that fails.
    """
    engine = dialect(settings)
    if isinstance(engine, SQLite):
        migrate.up(engine)
