"""Accounts: how many NARs are stored and their bytes, as counters that transactions keep.

A sum over the table would take longer with every NAR; a counter takes one short update. Its row is
the one that all writers share, so it is locked last: whoever holds it waits for nobody.
"""

from __future__ import annotations

from typing import Any, Final

from attrs import frozen


@frozen
class Change:
    """What a transaction adds to the counters; negative where bytes are gone."""

    nars: int = 0
    size: int = 0

    def __add__(self, other: Change) -> Change:
        return Change(self.nars + other.nars, self.size + other.size)

    def __sub__(self, other: Change) -> Change:
        return Change(self.nars - other.nars, self.size - other.size)


NOTHING: Final = Change()


def of_size(stored_size: int | None) -> Change:
    """What one NAR counts; None: it is not stored."""
    return NOTHING if stored_size is None else Change(1, stored_size)


def add(txn: Any, change: Change) -> None:
    """Keep the counters; the last statement of a transaction."""
    if change != NOTHING:
        txn.execute(
            "UPDATE accounts SET nars = nars + ?, bytes = bytes + ? WHERE name = 'stored'",
            (change.nars, change.size),
        )


def read(txn: Any) -> Change:
    """What the counters say."""
    row = txn.execute("SELECT nars, bytes FROM accounts WHERE name = 'stored'").fetchone()
    return NOTHING if row is None else Change(int(row[0]), int(row[1]))


def recount(txn: Any) -> Change:
    """Count anew; return by how much the counters were off.

    Who stores or forgets meanwhile waits to tell the counters, and is not in the sum yet; who has
    told them is.
    """
    txn.execute("SELECT nars FROM accounts WHERE name = 'stored' FOR UPDATE").fetchall()
    told = read(txn)
    nars, size = txn.execute(
        "SELECT COUNT(*), COALESCE(SUM(stored_size), 0) FROM nar_files WHERE stored_at IS NOT NULL"
    ).fetchone()
    counted = Change(int(nars), int(size))
    if counted != told:
        txn.execute(
            "INSERT INTO accounts (name, nars, bytes) VALUES ('stored', ?, ?)"
            " ON CONFLICT (name) DO UPDATE SET nars = excluded.nars, bytes = excluded.bytes",
            (counted.nars, counted.size),
        )
    return counted - told
