"""Writes that share one transaction: a commit and a sync cost the same for one as for many.

Each write is a savepoint, so the error of one takes back that one alone. If the engine itself has
taken back the transaction, as SQLite does where the disk is full, all of them have failed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen

from ncps.database.dialects.base import Transaction


@frozen
class Write:
    """A function that writes, and whether its rows must survive a loss of power at once.

    :param function: None: the caller has written already, and waits for the sync.
    """

    function: Callable[[Transaction], Any] | None
    is_settled: bool = False


def write_together(
    connection: Any, txn: Transaction, writes: Sequence[Write], seen: Callable[[Exception], object]
) -> list[Any]:
    """Make writes in the transaction that has begun; blocks.

    Return the result of each, or its error. Raises the error of a write that is alone, and an error
    after which the engine has no transaction any more.

    :param connection: whose attribute `in_transaction` says whether it has a transaction.
    :param seen: told each error that is returned; may raise another one, of all writes.
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
