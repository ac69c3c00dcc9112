"""The way of the log's lines to a descriptor that may take none, such as a pipe without a reader.

A thread writes, so nothing else ever waits for the log. The lines that wait are bounded; lines
beyond that are dropped, and where they are missing one line says how many they were.

The descriptor is written to directly: a thread that waits within Python's own buffered stream
would keep the interpreter from ending.
"""

from __future__ import annotations

import atexit
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol, TextIO

MAX_SIZE: Final = 4 * 1024 * 1024
"""Bytes that may wait."""
END_S: Final = 1.0
"""Seconds that a process waits at its end for its last lines to be taken."""
LOOK_S: Final = 1.0
"""Seconds between two looks at a descriptor that neither takes bytes nor blocks."""


class Sink(Protocol):
    """Takes lines: a stream, or an object before one."""

    def write(self, text: str, /) -> object:
        """Take lines, each with its end. Raises OSError or ValueError if that fails."""

    def flush(self) -> object:
        """Pass them on. Raises OSError or ValueError if that fails."""


def _spawn(run: Callable[[], object]) -> None:
    threading.Thread(target=run, name="log", daemon=True).start()


class LineQueue:
    """Lines that wait for a thread to write them.

    Safe from any thread, and from within itself: a collection of garbage may log at any moment.

    :param fd: where lines go; stays open.
    :param told: makes the line, with its end, that says how many lines are missing.
    :param spawn: runs a function in a thread.
    :ivar dropped: lines that were never written, so far.
    """

    def __init__(
        self,
        fd: int,
        told: Callable[[int], str],
        *,
        max_size: int = MAX_SIZE,
        spawn: Callable[[Callable[[], object]], object] = _spawn,
    ) -> None:
        self.dropped = 0
        self._fd = fd
        self._told = told
        self._max_size = max_size
        self._spawn = spawn
        self._is_running = False
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._missing = 0
        self._changed = threading.Condition()  # whose lock the same thread may take again

    def write(self, text: str) -> None:
        """Have lines written in one piece, or drop them if too many bytes wait."""
        piece = text.encode("utf-8", "backslashreplace")
        with self._changed:
            if self._size + len(piece) > self._max_size:
                self._drop(piece)
                return
            self._tell_missing()
            self._put(piece)
            if not self._is_running:
                self._is_running = True
                self._spawn(self._run)
            self._changed.notify_all()

    def flush(self) -> None:
        """See `io.TextIOBase`: the thread does not wait for more."""

    def close(self, deadline_s: float = END_S) -> None:
        """Wait until all is written, at most `deadline_s`."""
        until = time.monotonic() + deadline_s
        with self._changed:
            while self._size and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)

    def step(self) -> None:
        """Write the first piece that waits; for the thread."""
        with self._changed:
            piece = self._waiting.popleft()
        is_written = self._write(piece)
        with self._changed:
            self._size -= len(piece)
            if not is_written:
                self._drop(piece)
            elif not self._waiting:
                self._tell_missing()
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
            self.step()

    def _put(self, piece: bytes) -> None:
        self._waiting.append(piece)
        self._size += len(piece)

    def _drop(self, piece: bytes) -> None:
        lines = piece.count(b"\n")
        self.dropped += lines
        self._missing += lines

    def _tell_missing(self) -> None:
        """Say how many lines are missing before the next one."""
        missing, self._missing = self._missing, 0
        if missing:
            self._put(self._told(missing).encode("utf-8", "backslashreplace"))

    def _write(self, piece: bytes) -> bool:
        """Write all of a piece, however long that takes; False if it cannot be written."""
        view = memoryview(piece)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:  # another process has set it so
                select.select([], [self._fd], [], LOOK_S)
            except OSError:
                return False
        return True


_queues: list[LineQueue] = []


def before(stream: TextIO, told: Callable[[int], str]) -> Sink:
    """Return a queue before a stream; the stream itself, if it has no descriptor.

    :param told: see `LineQueue`.
    """
    try:
        stream.flush()
        queue = LineQueue(stream.fileno(), told)
    except (OSError, ValueError, AttributeError):
        return stream
    _queues.append(queue)
    atexit.register(queue.close)
    return queue


def say(text: str) -> bool:
    """Have a text written among the lines of the log, as it is; return false if none is queued."""
    if _queues:
        _queues[-1].write(text)
    return bool(_queues)


def settle() -> None:
    """Wait a second at most until the last lines are taken; for an end that runs no `atexit`."""
    for queue in _queues:
        queue.close()


def dropped() -> int:
    """Return how many lines this process could not write so far."""
    return sum(queue.dropped for queue in _queues)
