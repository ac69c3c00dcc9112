"""Bodies: bytes being pulled."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol, runtime_checkable

from attrs import frozen


class SteadyFile(Protocol):
    """An open local file that should never change; reads notice if it does.

    :ivar fd: its descriptor; the code that has opened the file closes it.
    """

    fd: int

    def read_into(self, buffer: memoryview, position: int) -> int | None:
        """Copy what lies at a position and is in memory, one byte at least; return how many.

        None: that would have to wait for the disk. Raises Corrupt if the file ends before, or has
        changed, Unavailable if it cannot be read now.
        """


Reopen = Callable[[], SteadyFile | None]
"""Opens a file once more, without waiting; the caller closes its descriptor. None: ask for it in
the usual way, since that would have to wait, or the file is not the one that it should be."""


@frozen
class Segment:
    """Bytes of an open local file, for `ncps.aio.unchanged_file`; the Body owns the descriptor.

    :param read: given a count and a position, reads at most `count` bytes there, at least one, and
        waits for the disk if they are not in memory. Raises Corrupt if the file has changed,
        Unavailable if it cannot be read now.
    :param is_growing: whether bytes are appended to the file meanwhile. Then it is private, and has
        changed only if it has become too short.
    """

    fd: int
    offset: int
    length: int
    read: Callable[[int, int], Awaitable[bytes]]
    is_growing: bool = False


class Body(Protocol):
    """Bytes being pulled, in order, once.

    The coroutine that got the Body closes it, also after an error; `close` is idempotent, may be
    called between chunks, and gives up the source. Cancelling the await of a chunk is allowed
    and must be followed by `close`. A source that fails raises `Unavailable` or `Corrupt` out of
    the iteration: a Body that ends without raising has delivered everything.
    """

    @property
    def size(self) -> int | None:
        """Bytes in all, counted from the Body's first byte, if known before the end."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    def segment(self) -> Segment | None:
        """The same bytes as a piece of a local file, if they lie in one; only before iterating."""

    def close(self) -> None: ...


@runtime_checkable
class GrowingBody(Body, Protocol):
    """A Body that may lie in a file which still grows."""

    def pieces(self) -> AsyncIterator[bytes | Segment]:
        """The same bytes as iteration gives, in place of it; those in the file by where they lie.

        A piece is good until the body is closed; it counts as read when the next one is asked for.
        """
