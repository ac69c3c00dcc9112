"""Outbox: telemetry that waits for a thread to send it.

An exporter may take seconds, fail, or hang. So each signal has a thread that waits for its
exporter, and the reactor's thread only puts items into a bounded queue. Items beyond the bound, and
items that the exporter fails to send, are counted and lost.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Generic, Protocol, TypeVar

from attrs import frozen
from twisted.logger import Logger

from ncps.observe.otel.complaints import THREADS, forget_complaint, latest_complaint

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

CLOSING_S: Final = 1.0
"""Seconds that an exporter has to stop, after the deadline of the end."""

_LONGEST: Final = 600
_log: Final = Logger(namespace="ncps.observe.otel")


@frozen(kw_only=True)
class OutboxLimits:
    """The limits of an outbox.

    :param size: items that may wait.
    :param batch: items in one call of the sender, at most.
    :param delay_s: seconds for which an item waits for others, at most.
    """

    size: int = 2048
    batch: int = 512
    delay_s: float = 5.0


class Sender(Protocol[T_contra]):
    """Sends items in a thread, which may take long."""

    def send(self, items: Sequence[T_contra]) -> bool:
        """Send items; False, or any error, if they are lost."""

    def close(self) -> None:
        """Stop sending and free all resources; may be called while `send` runs."""


class Outbox(Generic[T]):
    """The waiting items of one signal.

    Any thread may call `put`, even while it runs in the same thread.

    :param signal: names the items in the log: traces, metrics or logs.
    :param lost: called with the number of items that are lost.
    """

    def __init__(
        self,
        signal: str,
        destination: Sender[T],
        lost: Callable[[int], object],
        limits: OutboxLimits = OutboxLimits(),
    ) -> None:
        self._signal = signal
        self._destination = destination
        self._lost = lost
        self._limits = limits
        self._items: deque[T] = deque()
        self._changed = threading.Condition()  # a garbage collection may log, and so call `put`
        self._is_closing = False
        self._is_away = False
        self._thread = threading.Thread(target=self._run, name=f"{THREADS}{signal}", daemon=True)

    def start(self) -> None:
        """Begin to send items."""
        self._thread.start()

    def put(self, item: T) -> None:
        """Queue an item, or count it as lost if too many wait."""
        with self._changed:
            is_full = self._is_closing or len(self._items) >= self._limits.size
            if not is_full:
                self._items.append(item)
                if len(self._items) in {1, self._limits.batch}:
                    self._changed.notify_all()
        if is_full:
            self._lost(1)

    def close_blocking(self, deadline_s: float) -> None:
        """Send all items, for `deadline_s` seconds at most; then stop the sender. For a thread."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join(deadline_s)
        with suppress(Exception):  # exporters may raise any error
            self._destination.close()
        self._thread.join(CLOSING_S)

    def _run(self) -> None:
        while True:
            batch, is_last = self._take()
            if batch:
                self._send(batch)
            elif is_last:
                return

    def _take(self) -> tuple[list[T], bool]:
        """Wait until a batch is full, or its first item has waited long enough; return it."""
        with self._changed:
            while not self._items and not self._is_closing:
                self._changed.wait()
            until = time.monotonic() + self._limits.delay_s
            while not self._is_closing and len(self._items) < self._limits.batch:
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            count = min(len(self._items), self._limits.batch)
            return [self._items.popleft() for _ in range(count)], self._is_closing

    def _send(self, batch: list[T]) -> None:
        reason = ""
        forget_complaint()
        try:
            is_taken = self._destination.send(batch)
        except Exception as error:  # noqa: BLE001 - exporters may raise any error
            is_taken, reason = False, f"{type(error).__name__}: {error}"
        if not is_taken:
            self._lost(len(batch))
        self._tell(is_away=not is_taken, reason=reason)

    def _tell(self, *, is_away: bool, reason: str) -> None:
        """Log once that the collector accepts nothing, and once that it does again."""
        if is_away == self._is_away:
            return
        self._is_away = is_away
        if is_away:
            _log.warn(
                "the collector does not accept {signal}, which are lost until it does: {reason}",
                signal=self._signal,
                reason=(reason or latest_complaint() or "it did not say why")[:_LONGEST],
            )
        else:
            _log.info("the collector accepts {signal} again", signal=self._signal)
