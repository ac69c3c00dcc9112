"""A head and a file, sent to a socket in one turn of the reactor, without Twisted's buffers.

Each piece of the file is copied into one buffer of the process, and from there to the socket. The
copy makes this safe: see `ncps.aio.unchanged_file`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ncps.aio.nowait import buffer
from ncps.errors import NcpsError
from ncps.ports import SteadyFile

FILE_LIMIT: Final = 2 * 1024 * 1024
"""Bytes of a file that are sent in one turn of the reactor."""

BUFFER: Final = buffer(512 * 1024)
"""Holds a piece of a file between two system calls; small enough for the caches of a core."""


def send_in_turn(socket: Any, head: bytes, file: SteadyFile, size: int) -> int | None:
    """Send a head and then a file of `size` bytes, as many bytes as the socket accepts now.

    Returns the number of bytes of both that were sent. It is smaller than the sum if the socket is
    full, or if the rest of the file is not in memory, cannot be read or has changed. Returns None,
    and offers the socket nothing, if the beginning of the file is not in memory, cannot be read or
    has changed. After a number, even 0, the caller must send exactly the bytes that follow: a
    socket that encrypts may have begun with them. All bytes were read before the file changed.
    """
    count = _copied(file, 0, size)
    if count is None:
        return None
    sent = _taken(socket, (head, BUFFER[:count]))
    if sent < len(head) + count:
        return sent
    end = min(size, FILE_LIMIT)
    at = count
    while at < end:
        count = _copied(file, at, end)
        if count is None:
            break
        taken = _taken(socket, (BUFFER[:count],))
        at += taken
        if taken < count:
            break
    return len(head) + at


def _copied(file: SteadyFile, at: int, end: int) -> int | None:
    """Copy bytes of a file into the buffer; return their number, None if they cannot be read."""
    try:
        return file.read_into(BUFFER[: end - at], at)
    except NcpsError:
        return None


def _taken(socket: Any, parts: Sequence[bytes | memoryview]) -> int:
    """Send bytes; return how many the socket has accepted, 0 if it is full or broken."""
    try:
        sent: int = socket.sendmsg(parts)
    except OSError:  # the write of the rest shows whether it is full or broken
        return 0
    return sent
