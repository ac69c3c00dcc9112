"""The file of a spool; threads read and write it, so that the reactor's thread never waits."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred

from ncps.aio.nowait import READ_SIZE, bytes_now, read_now
from ncps.aio.threads import Threads, in_background
from ncps.aio.writeback import begin_writeback
from ncps.errors import NcpsError, Unavailable
from ncps.ports import Segment, SteadyFile

P = ParamSpec("P")
R = TypeVar("R")

MUCH: Final = 256 * 1024
"""Bytes of a batch from which on the disk begins to write it immediately."""


class SpoolFile(Protocol):
    """An open, empty, private file."""

    @property
    def fd(self) -> int:
        """The descriptor, open for reading and writing."""

    @property
    def path(self) -> Path:
        """Where the file lies."""

    def discard(self) -> None:
        """Unlink the file unless it has been renamed since."""

    def close(self) -> None:
        """Close the descriptor; once."""


class SpoolDisk:
    """The file of a spool, opened, written, read and closed in threads.

    :param open_file: opens the file, blocking; None: there is none.
    :param idle: called when a read has ended.
    :param trouble: the reason if there is no file.
    :ivar length: bytes that lie in the file.
    :ivar trouble: the reason why the file takes no more bytes; empty while it takes them.
    """

    def __init__(
        self,
        open_file: Callable[[], SpoolFile] | None,
        workers: Threads,
        *,
        idle: Callable[[], object],
        trouble: str,
    ) -> None:
        self.length = 0
        self.trouble = trouble if open_file is None else ""
        self._open_file = open_file
        self._file: SpoolFile | None = None
        self._workers = workers
        self._idle = idle
        self._reads = 0  # in threads
        self._is_discarded = False

    @property
    def is_unopened(self) -> bool:
        """Whether the file is still to be opened, by the first batch."""
        return self._open_file is not None

    @property
    def is_kept(self) -> bool:
        """Whether all bytes so far lie in the file, or will."""
        return (self._file is not None or self.is_unopened) and not self.trouble

    @property
    def is_read(self) -> bool:
        """Whether a thread reads now."""
        return self._reads > 0

    @property
    def file(self) -> SpoolFile:
        """The file, which is open."""
        assert self._file is not None
        return self._file

    def append_blocking(self, pieces: Sequence[bytes]) -> tuple[int, str]:
        """Write a batch; return how many bytes were written, and why not all.

        The caller updates `length` and `trouble` with them, on the reactor's thread.
        """
        if self._open_file is not None:
            try:
                self._file = self._open_file()
            except NcpsError as error:
                return 0, str(error)
            finally:
                self._open_file = None
        if self._file is None or self.trouble:
            return 0, self.trouble
        written = 0
        try:
            for piece in pieces:
                end = written + len(piece)
                while written < end:
                    rest = memoryview(piece)[len(piece) - (end - written) :]
                    written += os.pwrite(self._file.fd, rest, self.length + written)
        except OSError as error:
            return written, error.strerror or type(error).__name__
        if written >= MUCH:
            begin_writeback(self._file.fd, self.length, written)
        return written, ""

    def segment(self, position: int, count: int) -> Segment:
        """Return where at most `count` bytes of the file lie, at least one."""
        count = min(count, self.length - position)
        return Segment(self.file.fd, position, count, self.read, is_growing=True)

    async def read(self, count: int, position: int) -> bytes:
        """Return at most `count` bytes of the file, at least one."""
        count = min(count, self.length - position)
        data = _read_now(self.file, count, position)
        if data is None:
            data = await self.run(_read_blocking, self.file, count, position)
        return data

    def read_blocking(self, position: int) -> bytes:
        """Return some bytes of the file, at least one; only for calls by `run`."""
        return _read_blocking(self.file, min(READ_SIZE, self.length - position), position)

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function in a thread; until it returns, the file stays open."""

        def ended(result: Any) -> Any:
            self._reads -= 1
            self._idle()
            return result

        self._reads += 1
        job = Deferred.fromCoroutine(self._workers.run(function, *args, **kwargs))
        waiting: Deferred[R] = Deferred()
        job.addBoth(ended).addCallbacks(waiting.callback, waiting.errback)
        return await waiting

    def discard(self) -> None:
        """Unlink the file in the background, unless it has been renamed; idempotent."""
        if self._file is not None and not self._is_discarded:
            self._is_discarded = True
            in_background(self._workers, self._file.discard)

    def close(self) -> None:
        """Discard the file, if `discard` was not called yet, and close it in the background."""
        self.discard()
        self._idle = _nothing  # else this and its spool would refer to each other
        file, self._file = self._file, None
        if file is not None:
            in_background(self._workers, file.close)


def _nothing() -> None:
    pass


class AppendedFile(SteadyFile):
    """A private file that grows, as a connection reads it; see `SteadyFile`.

    :param fd: open for reading; the caller closes it.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def read_into(self, buffer: memoryview, position: int) -> int | None:
        """See `SteadyFile`; raises Unavailable if the file has become too short."""
        try:
            count = read_now(self.fd, buffer, position)
        except OSError as error:
            raise _unreadable(error) from error
        if count is not None:
            _check_length(self.fd, count, position)
        return count


def _read_now(file: SpoolFile, count: int, position: int) -> bytes | None:
    """Return at most `count` bytes that are in memory; None: a thread must read them.

    Raises Unavailable if the file cannot be read.
    """
    try:
        data = bytes_now(file.fd, count, position)
    except OSError as error:
        raise _unreadable(error) from error
    return None if data is None else _checked(file, data, position)


def _read_blocking(file: SpoolFile, count: int, position: int) -> bytes:
    """Return at most `count` bytes, at least one. Raises Unavailable if there is none."""
    try:
        data = os.pread(file.fd, count, position)
    except OSError as error:
        raise _unreadable(error) from error
    return _checked(file, data, position)


def _checked(file: SpoolFile, data: bytes, position: int) -> bytes:
    """Return the data if the file still has it; see `ncps.aio.unchanged_file`."""
    _check_length(file.fd, len(data), position)
    return data


def _check_length(fd: int, count: int, position: int) -> None:
    """Raise Unavailable unless the file still has the bytes that were read at a position."""
    if not count or os.fstat(fd).st_size < position + count:
        raise Unavailable("the spool has lost bytes")


def _unreadable(error: OSError) -> Unavailable:
    return Unavailable(f"the spool cannot be read: {error.strerror}")
