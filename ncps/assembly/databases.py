"""The database of the catalog, as the settings name it."""

from __future__ import annotations

from typing import Any

from ncps.database.dialects import SQLite
from ncps.database.pool import Database
from ncps.settings.model import Settings


def dialect(settings: Settings) -> SQLite:
    """Make the dialect of the database; nothing is opened."""
    return SQLite(settings.cache.database_url.path)


def database(reactor: Any, settings: Settings) -> Database:
    """Make the database; the service opens and closes it."""
    return Database(reactor, dialect(settings))
