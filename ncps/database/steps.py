"""Steps: a migration on an engine that commits each statement of it, such as MySQL.

The row of an unfinished migration has in `applied_at`, as a negative number, the number of the next
statement. A statement that changes rows is in one transaction with the update of this number. A
statement that changes tables is atomic, and the number is updated after it. If a process dies
between the two, the next process executes the statement again; "exists already" then counts as
success.
"""

from __future__ import annotations

import time

from ncps.database.dialects.base import Dialect, Transaction
from ncps.database.migration import Migration


def apply(txn: Transaction, migration: Migration, dialect: Dialect) -> None:
    """Execute the remaining statements of a migration."""
    row = txn.execute(
        "SELECT applied_at FROM schema_migrations WHERE version = ?", (migration.version,)
    ).fetchone()
    if row is None:
        txn.execute(
            "INSERT INTO schema_migrations (version, name, checksum, applied_at)"
            " VALUES (?, ?, ?, -1)",
            (migration.version, migration.name, migration.checksum),
        )
    first = 1 if row is None else -int(row[0])
    for number, statement in enumerate(migration.statements, 1):
        if number < first:
            continue
        for begin in dialect.begin_write:
            txn.execute(begin)
        try:
            txn.execute(statement)
        except dialect.errors as error:
            if number > first or row is None or not dialect.is_done_already(error):
                raise
        _note(txn, migration, -number - 1)
        txn.execute("COMMIT")
    _note(txn, migration, int(time.time() * 1000))


def _note(txn: Transaction, migration: Migration, applied_at: int) -> None:
    txn.execute(
        "UPDATE schema_migrations SET applied_at = ? WHERE version = ?",
        (applied_at, migration.version),
    )
