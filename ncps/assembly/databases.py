"""The database of the catalog, as the settings name it."""

from __future__ import annotations

import os
from typing import Any, Final

from ncps.database import migrate
from ncps.database.dialects.base import Dialect, Server
from ncps.database.dialects.libpq import completed
from ncps.database.dialects.mysql import MySQL
from ncps.database.dialects.postgresql import PostgreSQL
from ncps.database.dialects.sqlite import SQLite
from ncps.database.local import LocalDatabase
from ncps.database.lock import DatabaseLock
from ncps.database.pool import Database, Observer
from ncps.database.server import PATIENCE_S, ServerDatabase
from ncps.settings.model import Settings

CONNECTIONS: Final = 10
"""To a server, where the settings do not say."""


def dialect(settings: Settings) -> Dialect:
    """Make the dialect of the database; nothing is opened. Refused if its driver is missing."""
    where = settings.cache.database_url
    if where.is_file:
        return SQLite(where.path)
    patience = settings.cache.database
    server = Server(
        host=where.host,
        port=where.port,
        others=where.others,
        socket=where.socket,
        user=where.user,
        password=where.password or patience.password or None,
        database=where.database,
        options={**where.options, **where.hidden},
        connect_timeout_s=patience.connect_timeout_s,
        statement_timeout_s=patience.statement_timeout_s,
    )
    if where.dialect == "mysql":
        return MySQL(server)
    return PostgreSQL(completed(server, os.environ))


def database(reactor: Any, settings: Settings, observe: Observer) -> Database:
    """Make the database; the service opens and closes it. Refused if its driver is missing."""
    engine = dialect(settings)
    if isinstance(engine, SQLite):
        return LocalDatabase(reactor, engine, observe)
    patience = settings.cache.database
    size = patience.pool.max_open_conns or CONNECTIONS
    return ServerDatabase(
        reactor,
        engine,
        size=size,
        idle=patience.pool.max_idle_conns or size,
        deadline_s=patience.connect_timeout_s * len(settings.cache.database_url.places)
        + patience.statement_timeout_s
        + PATIENCE_S,
        observe=observe,
    )


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
