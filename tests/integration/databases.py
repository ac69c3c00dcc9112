"""Databases of tests: a dialect for a new database on a server of the test process."""

from __future__ import annotations

from contextlib import closing
from functools import cache
from typing import Any
from urllib.parse import unquote, urlsplit

from attrs import evolve

from ncps.database import migrate
from ncps.database.dialects.mysql import MySQL
from ncps.database.dialects.postgresql import PostgreSQL
from ncps.database.dialects.server import DatabaseServer, ServerDialect
from ncps.database.server import ServerDatabase
from ncps.observe.metrics import Metrics
from tests.integration.servers.database import DatabaseServer as TestServer


def server_of(url: str, **changes: Any) -> DatabaseServer:
    """Return the settings in a URL of the test servers."""
    parts = urlsplit(url)
    plain = DatabaseServer(
        host=parts.hostname or "",
        port=parts.port or 0,
        user=parts.username or "",
        password=unquote(parts.password or ""),
        database=parts.path.removeprefix("/"),
        connect_timeout_s=3.0,
        statement_timeout_s=5.0,
    )
    return evolve(plain, **changes)


def dialect_of(url: str, **changes: Any) -> ServerDialect:
    """Return the dialect for a URL of the test servers."""
    server = server_of(url, **changes)
    return PostgreSQL(server) if url.startswith("postgresql:") else MySQL(server)


@cache
def _migrated(server: TestServer) -> ServerDialect:
    dialect = dialect_of(server.new_database())
    migrate.up(dialect)
    return dialect


def emptied(server: TestServer) -> ServerDialect:
    """Return a database with the schema and no rows; always the same, and faster than a new one."""
    dialect = _migrated(server)
    with closing(dialect.connect()) as connection:
        cursor = connection.cursor()
        cursor.execute("BEGIN")
        cursor.execute("DELETE FROM nar_files")  # and narinfos, by their foreign key
        cursor.execute("DELETE FROM facts")
        cursor.execute("DELETE FROM wrong_files")
        cursor.execute("DELETE FROM realisations")
        cursor.execute("DELETE FROM replicas")
        for table in ("pins", "pinned_paths", "blocked_paths", "blocked_files"):
            cursor.execute(f"DELETE FROM {table}")
        cursor.execute("DELETE FROM tokens")
        cursor.execute("UPDATE accounts SET nars = 0, bytes = 0")
        connection.commit()
    return dialect


def database_of(reactor: Any, dialect: ServerDialect, **changes: Any) -> ServerDatabase:
    """Return a database with four connections."""
    arguments: dict[str, Any] = {"size": 4, "idle": 4, "deadline_s": 10.0, "metrics": Metrics()}
    arguments |= changes
    return ServerDatabase(reactor, dialect, **arguments)
