"""Databases on servers for tests: a dialect for a new database of the test process's server."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

from attrs import evolve

from ncps.database.dialects.base import Dialect, Server
from ncps.database.dialects.mysql import MySQL
from ncps.database.dialects.postgresql import PostgreSQL
from ncps.database.server import ServerDatabase


def server_of(url: str, **changes: Any) -> Server:
    """What a URL of the test servers says."""
    parts = urlsplit(url)
    plain = Server(
        host=parts.hostname or "",
        port=parts.port or 0,
        user=parts.username or "",
        password=unquote(parts.password or ""),
        database=parts.path.removeprefix("/"),
        connect_timeout_s=3.0,
        statement_timeout_s=5.0,
    )
    return evolve(plain, **changes)


def dialect_of(url: str, **changes: Any) -> Dialect:
    """The dialect for a URL of the test servers."""
    server = server_of(url, **changes)
    return PostgreSQL(server) if url.startswith("postgresql:") else MySQL(server)


def database_of(reactor: Any, dialect: Dialect, **changes: Any) -> ServerDatabase:
    """A database of four connections."""
    arguments = {"size": 4, "idle": 4, "deadline_s": 10.0} | changes
    return ServerDatabase(reactor, dialect, **arguments)
