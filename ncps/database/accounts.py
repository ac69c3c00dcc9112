"""Accounts: counters of the stored NARs and of their bytes, which transactions update.

A sum over the table takes longer with every NAR; an update of a counter does not. All writers share
its row, so each transaction locks it last: a transaction that has this lock waits for no other one.
"""

from __future__ import annotations

from typing import Any, Final

from attrs import frozen


@frozen
class Change:
    """The change of the counters by a transaction; negative if bytes were removed."""

    nars: int = 0
    size: int = 0

    def __add__(self, other: Change) -> Change:
        return Change(self.nars + other.nars, self.size + other.size)

    def __sub__(self, other: Change) -> Change:
        return Change(self.nars - other.nars, self.size - other.size)


NOTHING: Final = Change()


def of_size(stored_size: int | None) -> Change:
    """Return the counters for a single NAR.

    :param stored_size: None if it is not stored.
    """
    return NOTHING if stored_size is None else Change(1, stored_size)


def add(txn: Any, change: Change) -> None:
    """Update the counters; this must be the last statement of a transaction."""
    if change != NOTHING:
        txn.execute(
            "UPDATE accounts SET nars = nars + ?, bytes = bytes + ? WHERE name = 'stored'",
            (change.nars, change.size),
        )


def read(txn: Any) -> Change:
    """Return the counters."""
    row = txn.execute("SELECT nars, bytes FROM accounts WHERE name = 'stored'").fetchone()
    return NOTHING if row is None else Change(int(row[0]), int(row[1]))


def recount(txn: Any) -> Change:
    """Count again; return the difference from the old counters.

    A transaction that stores or forgets a NAR at the same time waits for this one before it updates
    the counters, and its NAR is not in the sum yet.
    """
    txn.execute("SELECT nars FROM accounts WHERE name = 'stored' FOR UPDATE").fetchall()
    counter = read(txn)
    nars, size = txn.execute(
        "SELECT COUNT(*), COALESCE(SUM(stored_size), 0) FROM nar_files WHERE stored_at IS NOT NULL"
    ).fetchone()
    counted = Change(int(nars), int(size))
    if counted != counter:
        txn.execute(
            "INSERT INTO accounts (name, nars, bytes) VALUES ('stored', ?, ?)"
            " ON CONFLICT (name) DO UPDATE SET nars = excluded.nars, bytes = excluded.bytes",
            (counted.nars, counted.size),
        )
    return counted - counter
