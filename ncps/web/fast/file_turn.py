"""A head and a file, sent to a socket in one turn of the reactor, past all buffers of Twisted.

The file is copied a piece at a time into one buffer of the process, and from there to the socket.
The copy is what makes it safe: see `ncps.aio.unchanged_file`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ncps.aio.nowait import buffer
from ncps.errors import NcpsError
from ncps.ports import SteadyFile

FILE_LIMIT: Final = 2 * 1024 * 1024
"""Bytes of a file that are sent before others have their turn."""

BUFFER: Final = buffer(512 * 1024)
"""Where pieces of files lie between two system calls; small enough for the caches of a core."""


def send_in_turn(socket: Any, head: bytes, file: SteadyFile, size: int) -> int | None:
    """Send a head and a file of `size` bytes behind it, as far as the socket takes them now.

    Returns how many bytes of both were sent: less than all also where the rest of the file is not
    in memory, cannot be read or has changed. Returns None where that is so of its beginning: then
    nothing was offered to the socket. The bytes behind those that were sent must follow, and no
    other ones, also where none was sent: a socket that encrypts may have begun with them. Each byte
    of the file was read before the file had changed.
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
    """Copy bytes of a file into the buffer; return how many, None if they cannot be had now."""
    try:
        return file.read_into(BUFFER[: end - at], at)
    except NcpsError:
        return None


def _taken(socket: Any, parts: Sequence[bytes | memoryview]) -> int:
    """Have the socket take bytes; return how many it has taken, 0 if it is full or broken."""
    try:
        sent: int = socket.sendmsg(parts)
    except OSError:  # writing the rest finds out which
        return 0
    return sent
