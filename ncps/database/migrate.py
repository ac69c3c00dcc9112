"""Migrations: they bring the schema up to date, forward only, each step in one transaction.

The table `schema_migrations` has a row with a checksum for each applied step. ncps refuses a schema
that is newer than the program, and a database of another program. If several processes start at the
same time, they take turns: each step needs the database's exclusive lock. If the engine cannot roll
a step back, `steps` continues it after an interruption.

A database of a version before the first release has other numbers, and another checksum at
number 1. It gets the rest of the old steps; all of them together count as step 1. Its rows keep the
old numbers until a later step is applied, so that a daemon of that version can still start beside
this one.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any, Final

from attrs import frozen

from ncps.database import former, steps
from ncps.database.dialects.base import Dialect, Sleep, Transaction, Trouble
from ncps.database.migration import Migration, known, unreleased
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
    ("pins", "looked_at"),
    ("pinned_paths", "pin_id"),
    ("blocked_paths", "blocked_at"),
    ("blocked_files", "blocked_at"),
    ("tokens", "last_used_at"),
    ("realisations", "last_used_at"),
)

ATTEMPTS: Final = 20
PAUSE_S: Final = 0.1


@frozen(kw_only=True)
class SchemaStatus:
    """The applied and the pending migrations of a database.

    :ivar is_to_renumber: whether the rows must get new numbers before the first pending step.
    """

    applied: tuple[Migration, ...]
    pending: tuple[Migration, ...]
    is_to_renumber: bool = False


def status(dialect: Dialect) -> SchemaStatus:
    """Return the applied and the pending migrations; changes nothing. Blocks.

    Raises Refused if the database is too new or of another program, Unavailable if it does not
    answer.
    """
    try:
        return _look(dialect)
    except dialect.errors as error:
        raise _translated(dialect, error) from error


def _look(dialect: Dialect) -> SchemaStatus:
    connection = dialect.inspect()
    if connection is None:
        return SchemaStatus(applied=(), pending=known(dialect.name))
    with closing(connection):
        return _status(connection, dialect)


def is_used(dialect: Dialect) -> bool:
    """Return whether the catalog has a narinfo; changes nothing. Blocks; raises as `status`."""
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
        raise _translated(dialect, error) from error


def up(dialect: Dialect, sleep: Sleep = time.sleep) -> tuple[Migration, ...]:
    """Apply the pending migrations; return them. Blocks.

    Raises the errors of `status`, and StorageFull if nothing can be written.

    :param sleep: blocks for a number of seconds if another process migrates.
    """
    dialect.prepare()
    for attempt in range(ATTEMPTS):
        try:
            # `_look` refuses a database of another program before this changes it.
            return _up(dialect, sleep) if _look(dialect).pending else ()
        except dialect.errors as error:
            # If two processes set a new SQLite file to WAL together, one fails immediately.
            is_hopeless = dialect.trouble(error) is not Trouble.CONFLICT
            if is_hopeless or attempt + 1 == ATTEMPTS:
                raise _translated(dialect, error) from error
        sleep(PAUSE_S)
    raise AssertionError("unreachable")


def _translated(dialect: Dialect, error: Exception) -> NcpsError:
    """Return an error of `ncps.errors`; if a server does not answer, with a hint."""
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
                # Read again under the lock: another process may have applied a step.
                found = _status(connection, dialect)
                if found.is_to_renumber:
                    _renumber(txn, dialect)
                if found.pending:
                    _apply(txn, found.pending[0], dialect)
                    done.append(found.pending[0])
            except BaseException:
                connection.rollback()
                raise
            connection.commit()
            if not found.pending:
                return tuple(done)


def _renumber(txn: Transaction, dialect: Dialect) -> None:
    """Replace the rows with old numbers by a row for step 1, which keeps its time."""
    if not dialect.has_transactional_ddl:
        for statement in dialect.begin_write:
            txn.execute(statement)
    txn.execute("DELETE FROM schema_migrations WHERE version > 1")
    txn.execute(
        "UPDATE schema_migrations SET checksum = ? WHERE version = 1",
        (known(dialect.name)[0].checksum,),
    )
    if not dialect.has_transactional_ddl:
        txn.execute("COMMIT")


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
    """Check that the database user has all needed rights; changes nothing. Blocks.

    Call this after `up`. Raises Refused if a right is missing, StorageFull if the server is
    read-only, Unavailable if it does not answer.
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
        raise _translated(dialect, error) from error


def _status(connection: Any, dialect: Dialect) -> SchemaStatus:
    ours, earlier = known(dialect.name), unreleased(dialect.name)
    rows = _rows(connection, dialect)
    checksums = {version: checksum for version, checksum, _ in rows}
    has_old_numbers = bool(earlier) and checksums.get(1) == earlier[0].checksum
    expected = earlier if has_old_numbers else ours
    newest = max(checksums, default=0)
    if newest > expected[-1].version:
        raise Refused(
            f"the database {dialect.where} has schema {newest}, newer than the"
            f" {expected[-1].version} of this program: run the newer program, or name another"
            " database"
        )
    for migration in expected:
        if checksums.get(migration.version, migration.checksum) != migration.checksum:
            raise Refused(
                f"the database {dialect.where} was made by a migration"
                f" {migration.version:04}_{migration.name} that is not the one of this program"
            )
    done = {version for version, _, applied_at in rows if applied_at >= 0}
    missing = tuple(m for m in expected if m.version not in done)
    later = ours[1:] if has_old_numbers else ()
    return SchemaStatus(
        applied=tuple(m for m in expected if m.version in done),
        pending=missing + later,
        is_to_renumber=bool(later) and not missing,
    )


def _rows(connection: Any, dialect: Dialect) -> list[tuple[int, str, int]]:
    """Return version, checksum and time of each migration that has begun.

    A negative time means that it has not ended: see `steps`. Raises Refused if the tables belong to
    another program.
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
