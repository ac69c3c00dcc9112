"""Databases of the Go program of the same name; ncps recognizes and never changes them."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from ncps.errors import Refused

TABLES: Final = frozenset({"narinfos", "nar_files", "narinfo_nar_files"})
SAMPLE: Final = 100
"""Rows that are read to find out whether a database belongs to a store."""

_MAGIC: Final = b"SQLite format 3\0"


def is_former(tables: Collection[str]) -> bool:
    """Return whether a database with these tables is one of the Go program."""
    return TABLES.issubset(tables)


def refusal(where: str, *, is_file: bool) -> Refused:
    """Return the error that says that ncps cannot use this database.

    :param where: the database, without secrets.
    """
    way_out = (
        "moving that file to a directory of its own, outside the store"
        if is_file
        else "naming another one (--cache-database-url)"
    )
    return Refused(
        f"the database {where} belongs to the Go program ncps: this version cannot take it over"
        " yet, and has changed nothing. Keep the Go program until a version can, or begin without"
        f" the data of that database (narinfos, uploads, pins, the signing key) by {way_out}"
    )


def is_former_file(path: Path) -> bool:
    """Return whether a file is an SQLite database of the Go program; False if unknown. Blocks.

    It writes nothing, neither into the file nor beside it, and takes no lock.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                return False
        with _opened(path) as connection:
            rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            return is_former({name for (name,) in rows})
    except (OSError, sqlite3.Error):
        return False


def files_of(path: Path) -> tuple[list[str], list[str]]:
    """Return some hashes of NARs and some hashes of chunks in such a database. Blocks.

    A table that cannot be read counts as empty.
    """
    found: list[list[str]] = []
    for table in ("nar_files", "chunks"):
        try:
            with _opened(path) as connection:
                rows = connection.execute(f"SELECT hash FROM {table} LIMIT {SAMPLE}")  # noqa: S608
                found.append([str(value) for (value,) in rows])
        except sqlite3.Error:
            found.append([])
    nars, chunks = found
    return nars, chunks


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    # Without `immutable`, SQLite makes files beside a database in WAL mode.
    uri = f"file:{quote(str(path))}?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        yield connection
