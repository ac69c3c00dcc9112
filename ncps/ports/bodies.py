"""Bodies: streams of bytes that their reader pulls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol, TypeGuard

from attrs import frozen


class SteadyFile(Protocol):
    """An open local file that should never change; reads notice if it does.

    :ivar fd: its descriptor; the code that has opened the file closes it.
    """

    fd: int

    def read_into(self, buffer: memoryview, position: int) -> int | None:
        """Copy the bytes at a position if they are in memory; return how many, at least one.

        None: a read would wait for the disk. Raises Corrupt if the file ends at the position, or
        has changed, Unavailable if it cannot be read now.
        """


Reopen = Callable[[], SteadyFile | None]
"""Opens a file again, without waiting; the caller closes its descriptor.

None: open it in the usual way, because opening would wait, or the file has been replaced.
"""


@frozen
class Segment:
    """A range of bytes in an open local file; the Body owns the descriptor.

    :param read: takes a count and a position; returns at most `count` bytes from there, at least
        one, and waits for the disk if needed. Raises Corrupt if the file has changed, Unavailable
        if it cannot be read now.
    :param is_growing: whether the file still grows. Then it is private, and has changed only if it
        has become too short.
    """

    fd: int
    offset: int
    length: int
    read: Callable[[int, int], Awaitable[bytes]]
    is_growing: bool = False


class Body(Protocol):
    """A stream of bytes that its reader pulls, in order, once.

    The coroutine that received the Body closes it, also after an error. `close` is idempotent, may
    be called between chunks, and gives up the source. A coroutine may be cancelled while it awaits
    a chunk; then it must call `close`. If the source fails, the iteration raises Unavailable or
    Corrupt: a Body that ends without an error has delivered all bytes.
    """

    @property
    def size(self) -> int | None:
        """The number of all bytes from the Body's first byte on, if known before the end."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    def segment(self) -> Segment | None:
        """Return where all bytes lie in a local file, if they do; only before the iteration."""

    def close(self) -> None: ...


class GrowingBody(Body, Protocol):
    """A Body that may lie in a file which still grows."""

    def pieces(self) -> AsyncIterator[bytes | Segment]:
        """Iterate over the same bytes; for bytes in the file, yield segments.

        A segment is valid until the body is closed; it counts as read when the next one is pulled.
        """


def is_growing(body: Body) -> TypeGuard[GrowingBody]:
    """Return whether a Body is a GrowingBody; `isinstance` of a Protocol costs 20 times that."""
    return hasattr(body, "pieces")
