"""Migrations: the schema brought up to date, forward only, each step one transaction.

What is applied stands in the table `schema_migrations`, with a checksum of each step. A schema
newer than this program is refused, and so is a database of another program. Several processes
that start at once take turns: each step happens under the database's exclusive lock.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import closing
from importlib.resources import files
from typing import Any, Final

from attrs import frozen

from ncps.database.dialects import SQLite
from ncps.errors import Refused

_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version INTEGER PRIMARY KEY,
    name VARCHAR(255) NOT NULL,
    checksum VARCHAR(64) NOT NULL,
    applied_at BIGINT NOT NULL
)
"""

_GO_TABLES = {"narinfos", "nar_files", "narinfo_nar_files"}

ATTEMPTS: Final = 20
PAUSE_S: Final = 0.1


@frozen(kw_only=True)
class Migration:
    """One step."""

    version: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of its statements, in hex; comments and layout do not count."""
        words = " ; ".join(" ".join(statement.split()) for statement in self.statements)
        return hashlib.sha256(words.encode()).hexdigest()

    @property
    def statements(self) -> list[str]:
        """Its statements; each ends with a semicolon at the end of a line."""
        lines = [line for line in self.text.splitlines() if not line.startswith("--")]
        parts = "\n".join(lines).split(";\n")
        return [part.strip().removesuffix(";") for part in parts if part.strip()]


@frozen(kw_only=True)
class Status:
    """What a database has and lacks, by version."""

    applied: tuple[Migration, ...]
    pending: tuple[Migration, ...]


def known(dialect: str) -> tuple[Migration, ...]:
    """Return the program's own migrations, in order."""
    found = []
    for file in files("ncps").joinpath("schema", dialect).iterdir():
        stem, dot, ending = file.name.rpartition(".")
        if dot and ending == "sql":
            version, _, name = stem.partition("_")
            text = file.read_text(encoding="utf-8")
            found.append(Migration(version=int(version), name=name, text=text))
    return tuple(sorted(found, key=lambda migration: migration.version))


def status(dialect: SQLite) -> Status:
    """Say what is applied and what is pending; changes nothing. Refused, Unavailable.

    Blocks; for the start of the program and for commands.
    """
    if not dialect.path.exists():
        return Status(applied=(), pending=known(dialect.name))
    if not dialect.path.is_file():
        raise Refused(f"{dialect.path} cannot be used as an SQLite database: it is no file")
    try:
        with closing(dialect.inspect()) as connection:
            return _status(connection, dialect)
    except dialect.errors as error:
        raise dialect.translated(error) from error


def make_directory(dialect: SQLite) -> None:
    """Make the directory of the database file, where it is missing. Refused."""
    try:
        dialect.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(
            f"the database directory {dialect.path.parent} cannot be made: {error.strerror}"
        ) from error


def up(dialect: SQLite, sleep: Callable[[float], object] = time.sleep) -> tuple[Migration, ...]:
    """Apply what is pending; return it. Refused, StorageFull, Unavailable. Blocks.

    :param sleep: waits so many seconds, while another process is at it.
    """
    make_directory(dialect)
    status(dialect)  # refuses a file that is not ours before anything in it is changed
    for attempt in range(ATTEMPTS):
        try:
            return _up(dialect)
        except dialect.errors as error:
            # Two that set a new file to WAL at one time collide without waiting for each other.
            if not dialect.is_retryable(error) or attempt + 1 == ATTEMPTS:
                raise dialect.translated(error) from error
        sleep(PAUSE_S)
    raise AssertionError("unreachable")


def _up(dialect: SQLite) -> tuple[Migration, ...]:
    done: list[Migration] = []
    with closing(dialect.connect()) as connection:
        while True:
            connection.execute("BEGIN EXCLUSIVE")
            try:
                # Looked at anew under the lock: another process may have done it meanwhile.
                pending = _status(connection, dialect).pending
                if pending:
                    _apply(connection, pending[0])
                    done.append(pending[0])
            except BaseException:
                connection.rollback()
                raise
            connection.commit()
            if not pending:
                return tuple(done)


def _apply(connection: Any, migration: Migration) -> None:
    connection.execute(_TABLE)
    for statement in migration.statements:
        connection.execute(statement)
    connection.execute(
        "INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES (?, ?, ?, ?)",
        (migration.version, migration.name, migration.checksum, int(time.time() * 1000)),
    )


def _status(connection: Any, dialect: SQLite) -> Status:
    ours = known(dialect.name)
    applied = _applied(connection, dialect)
    newest = max(applied, default=0)
    if newest > ours[-1].version:
        raise Refused(
            f"the database {dialect.path} has schema {newest}, newer than the {ours[-1].version}"
            " of this program: run the newer program, or name another database"
        )
    for migration in ours:
        if applied.get(migration.version, migration.checksum) != migration.checksum:
            raise Refused(
                f"the database {dialect.path} was made by another"
                f" {migration.version:04}_{migration.name}: it cannot be trusted to fit"
            )
    return Status(
        applied=tuple(m for m in ours if m.version in applied),
        pending=tuple(m for m in ours if m.version not in applied),
    )


def _applied(connection: Any, dialect: SQLite) -> dict[int, str]:
    """Checksums by version; Refused if the tables are not ours."""
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    tables = {name for (name,) in rows if not name.startswith("sqlite_")}
    if not tables:
        return {}
    columns = {
        row[1] for row in connection.execute("PRAGMA table_info(schema_migrations)").fetchall()
    }
    if not {"version", "checksum"} <= columns:
        whose = "the Go program ncps" if tables >= _GO_TABLES else "another program"
        raise Refused(
            f"the database {dialect.path} belongs to {whose}: name another one"
            " (--cache-database-url) and fill it from the store with `ncps rebuild`"
        )
    return dict(connection.execute("SELECT version, checksum FROM schema_migrations").fetchall())
