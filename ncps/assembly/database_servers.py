"""A database server for the catalog, as the settings name it.

It is apart from `databases`, so that a daemon with SQLite does not import it.
"""

from __future__ import annotations

import os
from typing import Any, Final

from ncps.database.dialects.libpq import completed
from ncps.database.dialects.mysql import MySQL
from ncps.database.dialects.postgresql import PostgreSQL
from ncps.database.dialects.server import DatabaseServer, ServerDialect
from ncps.database.pool import Database
from ncps.database.server import PATIENCE_S, ServerDatabase
from ncps.observe.metrics import Metrics
from ncps.settings.schema.tree import Settings

CONNECTIONS: Final = 10
"""Connections to a server, if the settings give no number."""


def server_dialect(settings: Settings) -> ServerDialect:
    """Make the dialect of a server; nothing is opened. Raises Refused if its driver is missing."""
    where = settings.cache.database_url
    patience = settings.cache.database
    server = DatabaseServer(
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


def server_database(reactor: Any, settings: Settings, metrics: Metrics) -> Database:
    """Make the database of a server. Raises Refused if its driver is missing."""
    engine = server_dialect(settings)
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
        metrics=metrics,
    )
