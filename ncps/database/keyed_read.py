"""Reads of one row by its key, and of many rows by their keys in one statement."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from attrs import frozen

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@frozen(eq=False)
class KeyedRead(Generic[K, V]):
    """The two functions that read values by their keys.

    :param rows: `(txn, keys) -> row by key`, in one statement; omits a key without a row.
    :param value: makes the value of a row. Only the caller of that key gets the error it raises.
    """

    rows: Callable[[Any, Sequence[K]], Mapping[K, Any]]
    value: Callable[[Any], V]

    def one(self, txn: Any, key: K) -> V | None:
        """Read the value of a key; None if it has none."""
        row = self.rows(txn, (key,)).get(key)
        return None if row is None else self.value(row)

    def some(self, txn: Any, keys: Sequence[K]) -> dict[K, V | BaseException]:
        """Read the values of some keys; the error of a row stands in the place of its value."""
        return {key: self._outcome(row) for key, row in self.rows(txn, keys).items()}

    def _outcome(self, row: Any) -> V | BaseException:
        try:
            return self.value(row)
        except Exception as error:  # noqa: BLE001 - its caller gets it
            return error


def list_of(keys: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Return the SQL list after `IN` for some keys, and its parameters.

    The last key is repeated until their number is a power of two, so that a server has few
    statements to prepare. Raises ValueError if there are no keys.
    """
    if not keys:
        raise ValueError("an empty list is no SQL for some engines")
    count = 1 << (len(keys) - 1).bit_length()
    return f"({', '.join('?' * count)})", (*keys, *([keys[-1]] * (count - len(keys))))
