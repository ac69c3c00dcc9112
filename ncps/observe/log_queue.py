"""A queue of log lines before a descriptor that may block, such as a pipe without a reader.

A thread writes, so no other code waits for the log. The queue is bounded: further lines are
dropped, and one line in their place says how many are missing.

The thread writes to the descriptor directly: a thread that waits inside Python's buffered stream
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
"""Bytes that may wait, at most."""
END_S: Final = 1.0
"""Seconds for which a process waits at its end until its last lines are written."""
LOOK_S: Final = 1.0
"""Seconds between two attempts at a full descriptor that does not block."""


class Sink(Protocol):
    """A stream, or an object before one."""

    def write(self, text: str, /) -> object:
        """Write lines, each with its end. Raises OSError or ValueError if that fails."""

    def flush(self) -> object:
        """Pass the lines on. Raises OSError or ValueError if that fails."""


def _spawn(run: Callable[[], object]) -> None:
    threading.Thread(target=run, name="log", daemon=True).start()


class LineQueue:
    """Lines that wait for a thread to write them.

    Any thread may call it, even from within one of its methods: a garbage collection may log at
    any moment.

    :param fd: the descriptor to write to; the queue does not close it.
    :param describe: makes the line, with its end, that says how many lines are missing.
    :param spawn: runs a function in a new thread.
    :ivar dropped: number of lines that could not be written.
    """

    def __init__(
        self,
        fd: int,
        describe: Callable[[int], str],
        *,
        max_size: int = MAX_SIZE,
        spawn: Callable[[Callable[[], object]], object] = _spawn,
    ) -> None:
        self.dropped = 0
        self._fd = fd
        self._describe = describe
        self._max_size = max_size
        self._spawn = spawn
        self._is_running = False
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._missing = 0
        self._changed = threading.Condition()  # the same thread may take its lock twice

    def write(self, text: str) -> None:
        """Queue lines to be written in one piece, or drop them if too many bytes wait."""
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
        """Do nothing, since the thread writes without delay."""

    def close(self, deadline_s: float = END_S) -> None:
        """Wait until all lines are written, at most `deadline_s`."""
        until = time.monotonic() + deadline_s
        with self._changed:
            while self._size and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)

    def step(self) -> None:
        """Write the first waiting piece; called by the thread."""
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
        """Queue the line that says how many lines are missing here, if any is."""
        missing, self._missing = self._missing, 0
        if missing:
            self._put(self._describe(missing).encode("utf-8", "backslashreplace"))

    def _write(self, piece: bytes) -> bool:
        """Write a whole piece, without a deadline; False if it cannot be written."""
        view = memoryview(piece)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:  # another process has made the descriptor non-blocking
                select.select([], [self._fd], [], LOOK_S)
            except OSError:
                return False
        return True


_queues: list[LineQueue] = []


def before(stream: TextIO, describe: Callable[[int], str]) -> Sink:
    """Return a queue before a stream; the stream itself, if it has no descriptor.

    :param describe: see `LineQueue`.
    """
    try:
        stream.flush()
        queue = LineQueue(stream.fileno(), describe)
    except (OSError, ValueError, AttributeError):
        return stream
    _queues.append(queue)
    atexit.register(queue.close)
    return queue


def say(text: str) -> bool:
    """Write a text unchanged between lines of the log; return False if there is no queue."""
    if _queues:
        _queues[-1].write(text)
    return bool(_queues)


def settle() -> None:
    """Wait at most a second until the last lines are written, if `atexit` does not run."""
    for queue in _queues:
        queue.close()


def dropped() -> int:
    """Return the number of lines that this process could not write."""
    return sum(queue.dropped for queue in _queues)
