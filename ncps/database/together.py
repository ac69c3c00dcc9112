"""Writes that share one transaction: a commit and a sync cost the same for one as for many.

Each write has a savepoint, so an error rolls back its own write only. If the engine itself has
rolled back the transaction, as SQLite does when the disk is full, all writes have failed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen

from ncps.database.dialects.base import Transaction


@frozen
class Write:
    """A function that writes.

    :param function: None: the caller has written already, and waits for the sync.
    :param is_settled: whether its rows must be on the disk before its caller continues.
    """

    function: Callable[[Transaction], Any] | None
    is_settled: bool = False


def write_together(
    connection: Any, txn: Transaction, writes: Sequence[Write], seen: Callable[[Exception], object]
) -> list[Any]:
    """Make writes in the open transaction, blocking; return the result or the error of each.

    Raises the error of a single write, and an error after which the engine has no transaction.

    :param connection: has an attribute `in_transaction`.
    :param seen: called with each error that is returned; if it raises, all writes have failed.
    """
    if len(writes) == 1:
        (write,) = writes
        return [None if write.function is None else write.function(txn)]
    outcomes: list[Any] = []
    for write in writes:
        if write.function is None:
            outcomes.append(None)
            continue
        txn.execute("SAVEPOINT one")
        try:
            outcomes.append(write.function(txn))
        except Exception as error:
            if not connection.in_transaction:
                raise
            seen(error)
            txn.execute("ROLLBACK TO one")
            outcomes.append(error)
        txn.execute("RELEASE one")
    return outcomes
