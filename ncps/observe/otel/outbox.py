"""Outbox: telemetry that waits for a thread to hand it to an exporter.

An exporter may take seconds, and fail, and hang. So one thread for each signal waits for it, and
the reactor's thread does nothing but put items into a bounded queue. Items beyond the bound, and
those that the exporter does not take, are counted and gone.
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
"""Seconds that an exporter has to give up what it is doing, once the time for the end is over."""

_LONGEST: Final = 600
_log: Final = Logger(namespace="ncps.observe.otel")


@frozen(kw_only=True)
class OutboxLimits:
    """Bounds of an outbox.

    :param size: items that may wait.
    :param batch: items that are handed over at once, at most.
    :param delay_s: seconds that an item waits for others, at most.
    """

    size: int = 2048
    batch: int = 512
    delay_s: float = 5.0


class Sender(Protocol[T_contra]):
    """Takes items, in a thread; may take long."""

    def send(self, items: Sequence[T_contra]) -> bool:
        """Hand items over; False, or any error, if they are lost."""

    def close(self) -> None:
        """Give up what runs, and free everything; may be called while `send` runs."""


class Outbox(Generic[T]):
    """Items of one signal. `put` may be called in any thread, also while it runs in the same one.

    :param signal: names the items in the log: traces, metrics or logs.
    :param lost: told how many items no collector will get.
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
        self._changed = threading.Condition()  # a collection of garbage may log, and so call `put`
        self._is_closing = False
        self._is_away = False
        self._thread = threading.Thread(target=self._run, name=f"{THREADS}{signal}", daemon=True)

    def start(self) -> None:
        """Begin to hand items over."""
        self._thread.start()

    def put(self, item: T) -> None:
        """Have an item handed over, unless too many wait."""
        with self._changed:
            is_full = self._is_closing or len(self._items) >= self._limits.size
            if not is_full:
                self._items.append(item)
                if len(self._items) in {1, self._limits.batch}:
                    self._changed.notify_all()
        if is_full:
            self._lost(1)

    def close_blocking(self, deadline_s: float) -> None:
        """Hand over all items, for `deadline_s` seconds at most; then give up. For a thread."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join(deadline_s)
        with suppress(Exception):  # exporters raise what they like
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
        """Wait for a batch, or for the time that its first item may wait."""
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
        except Exception as error:  # noqa: BLE001 - exporters raise what they like
            is_taken, reason = False, f"{type(error).__name__}: {error}"
        if not is_taken:
            self._lost(len(batch))
        self._tell(is_away=not is_taken, reason=reason)

    def _tell(self, *, is_away: bool, reason: str) -> None:
        """Log once that the collector takes nothing, and once that it does again."""
        if is_away == self._is_away:
            return
        self._is_away = is_away
        if is_away:
            _log.warn(
                "the collector takes no {signal}, which are lost until it does: {reason}",
                signal=self._signal,
                reason=(reason or latest_complaint() or "it did not say why")[:_LONGEST],
            )
        else:
            _log.info("the collector takes {signal} again", signal=self._signal)
