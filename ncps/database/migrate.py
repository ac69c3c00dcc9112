"""Migrations: the schema brought up to date, forward only, each step one transaction.

What is applied stands in the table `schema_migrations`, with a checksum of each step. A schema
newer than this program is refused, and so is a database of another program. Several processes
that start at once take turns: each step happens under the database's exclusive lock. Where the
engine cannot take a step back, `steps` goes on where it was broken off.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any, Final

from attrs import frozen

from ncps.database import former, steps
from ncps.database.dialects.base import Dialect, Sleep, Transaction, Trouble
from ncps.database.migration import Migration, known
from ncps.errors import NcpsError, Refused, Unavailable

_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version INTEGER PRIMARY KEY,
    name VARCHAR(255) NOT NULL,
    checksum VARCHAR(64) NOT NULL,
    applied_at BIGINT NOT NULL
)
"""

_WRITTEN = (
    ("narinfos", "last_used_at"),
    ("nar_files", "last_used_at"),
    ("accounts", "bytes"),
    ("facts", "changed_at"),
    ("replicas", "seen_at"),
)

ATTEMPTS: Final = 20
PAUSE_S: Final = 0.1


@frozen(kw_only=True)
class SchemaStatus:
    """What a database has and lacks, by version."""

    applied: tuple[Migration, ...]
    pending: tuple[Migration, ...]


def status(dialect: Dialect) -> SchemaStatus:
    """Say what is applied and what is pending; changes nothing. Refused, Unavailable.

    Blocks; for the start of the program and for commands.
    """
    try:
        return _look(dialect)
    except dialect.errors as error:
        raise _told(dialect, error) from error


def _look(dialect: Dialect) -> SchemaStatus:
    connection = dialect.inspect()
    if connection is None:
        return SchemaStatus(applied=(), pending=known(dialect.name))
    with closing(connection):
        return _status(connection, dialect)


def is_used(dialect: Dialect) -> bool:
    """Whether the catalog knows a narinfo; changes nothing. Refused, Unavailable. Blocks."""
    try:
        connection = dialect.inspect()
        if connection is None:
            return False
        with closing(connection):
            if not _status(connection, dialect).applied:
                return False
            txn = Transaction(connection.cursor(), dialect.translate)
            return txn.execute("SELECT 1 FROM narinfos LIMIT 1").fetchone() is not None
    except dialect.errors as error:
        raise _told(dialect, error) from error


def up(dialect: Dialect, sleep: Sleep = time.sleep) -> tuple[Migration, ...]:
    """Apply what is pending; return it. Refused, StorageFull, Unavailable. Blocks.

    :param sleep: waits so many seconds, while another process is at it.
    """
    dialect.prepare()
    for attempt in range(ATTEMPTS):
        try:
            # Refuses a database that is not ours before anything in it is changed.
            return _up(dialect, sleep) if _look(dialect).pending else ()
        except dialect.errors as error:
            # Two that set a new SQLite file to WAL at one time collide without waiting.
            is_hopeless = dialect.trouble(error) is not Trouble.CONFLICT
            if is_hopeless or attempt + 1 == ATTEMPTS:
                raise _told(dialect, error) from error
        sleep(PAUSE_S)
    raise AssertionError("unreachable")


def _told(dialect: Dialect, error: Exception) -> NcpsError:
    """Our error, with what an operator can do about a server that does not answer."""
    found = dialect.translated(error)
    if dialect.trouble(error) is Trouble.AWAY and isinstance(found, Unavailable):
        return Unavailable(f"{found}; is it running, and is cache-database-url right?")
    return found


def _up(dialect: Dialect, sleep: Sleep) -> tuple[Migration, ...]:
    done: list[Migration] = []
    with closing(dialect.connect()) as connection, dialect.alone(connection, sleep):
        while True:
            txn = Transaction(connection.cursor(), dialect.translate)
            for statement in dialect.begin_migration:
                txn.execute(statement)
            try:
                # Looked at anew under the lock: another process may have done it meanwhile.
                pending = _status(connection, dialect).pending
                if pending:
                    _apply(txn, pending[0], dialect)
                    done.append(pending[0])
            except BaseException:
                connection.rollback()
                raise
            connection.commit()
            if not pending:
                return tuple(done)


def _apply(txn: Transaction, migration: Migration, dialect: Dialect) -> None:
    txn.execute(_TABLE)
    if not dialect.has_transactional_ddl:
        steps.apply(txn, migration, dialect)
        return
    for statement in migration.statements:
        txn.execute(statement)
    txn.execute(
        "INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES (?, ?, ?, ?)",
        (migration.version, migration.name, migration.checksum, int(time.time() * 1000)),
    )


def probe(dialect: Dialect) -> None:
    """Look whether what the program does is allowed to its user; nothing is changed. Refused.

    Also StorageFull (read-only) and Unavailable. Blocks; after `up`.
    """
    try:
        with closing(dialect.connect()) as connection:
            txn = Transaction(connection.cursor(), dialect.translate)
            for statement in dialect.begin_write:
                txn.execute(statement)
            for table, column in _WRITTEN:
                txn.execute(f"INSERT INTO {table} SELECT * FROM {table} WHERE 1 = 0")  # noqa: S608
                txn.execute(f"UPDATE {table} SET {column} = 0 WHERE 1 = 0")  # noqa: S608
                txn.execute(f"DELETE FROM {table} WHERE 1 = 0")  # noqa: S608
            connection.rollback()
    except dialect.errors as error:
        raise _told(dialect, error) from error


def _status(connection: Any, dialect: Dialect) -> SchemaStatus:
    ours = known(dialect.name)
    rows = _rows(connection, dialect)
    newest = max((version for version, _, _ in rows), default=0)
    if newest > ours[-1].version:
        raise Refused(
            f"the database {dialect.where} has schema {newest}, newer than the {ours[-1].version}"
            " of this program: run the newer program, or name another database"
        )
    checksums = {version: checksum for version, checksum, _ in rows}
    for migration in ours:
        if checksums.get(migration.version, migration.checksum) != migration.checksum:
            raise Refused(
                f"the database {dialect.where} was made by another"
                f" {migration.version:04}_{migration.name}: it cannot be trusted to fit"
            )
    done = {version for version, _, applied_at in rows if applied_at >= 0}
    return SchemaStatus(
        applied=tuple(m for m in ours if m.version in done),
        pending=tuple(m for m in ours if m.version not in done),
    )


def _rows(connection: Any, dialect: Dialect) -> list[tuple[int, str, int]]:
    """Version, checksum and time of what is applied or begun; Refused if the tables are not ours.

    Where the time is negative, the migration has begun and is not through: see `steps`.
    """
    tables = dialect.tables(connection)
    if not tables:
        return []
    if not {"version", "checksum"} <= dialect.columns(connection, "schema_migrations"):
        if former.is_former(tables):
            raise former.refusal(dialect.where, is_file=dialect.name == "sqlite")
        raise Refused(
            f"the database {dialect.where} belongs to another program: name another one"
            " (--cache-database-url)"
        )
    txn = Transaction(connection.cursor(), dialect.translate)
    return list(
        txn.execute("SELECT version, checksum, applied_at FROM schema_migrations").fetchall()
    )
