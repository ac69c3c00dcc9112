"""Leases and notices: how the processes of one cache agree, and their messages to each other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal, Protocol

from attrs import frozen


class Lease(Protocol):
    """A held lease; releasing twice is harmless, and a release never fails."""

    @property
    def is_lost(self) -> bool:
        """Whether another process may hold it now: the guarded work must not be committed."""

    @property
    def fence(self) -> int:
        """Number of this grant, larger than that of every earlier grant of the same name.

        Written with what the lease guards, it keeps a holder that lost its lease without noticing
        from overwriting its successor's work. 0 where one process is alone and it means nothing.
        """

    async def release(self) -> None: ...


class Leases(Protocol):
    """Mutual exclusion by name, fair within a process, not re-entrant.

    Each object is made with the `address` at which its process can be reached by the others; it
    is written down with every lease, so that they can find the process at work.
    """

    async def take(self, name: str) -> Lease:
        """Wait for the lease (cancellable); the caller releases it.

        Raises Unavailable if leases cannot be had.
        """

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[Lease]:
        """Take the lease, and release it at the end of the block."""
        lease = await self.take(name)
        try:
            yield lease
        finally:
            await lease.release()

    async def try_hold(self, name: str) -> Lease | None:
        """Take the lease if it is free; None if it is held. Raises Unavailable if that fails."""

    async def holder(self, name: str) -> str:
        """Return the address of its holder; empty if it has none, or its holder told none.

        May be out of date when it arrives: good for finding a process, never for deciding. Raises
        Unavailable if that cannot be told.
        """


NoticeKind = Literal["narinfo", "nar", "absent", "realisation", "gap"]


@frozen
class Notice:
    """A message of one replica to the others, so that they forget facts that have changed.

    :param kind: `narinfo`: the narinfo of a digest was stored, replaced or forgotten; `nar`: the
        bytes or the record of a NAR changed; `absent`: a digest or NAR that was absent is so no
        more; `realisation`: the same of a realisation, by its path; `gap`: notices may have been
        missed, all that is remembered is in doubt.
    :param name: digest or NAR file name; empty for `gap`.
    """

    kind: NoticeKind
    name: str = ""


class Notices(Protocol):
    """Messages among replicas, best effort: nothing may depend on an arrival.

    A notice reaches every other object on the same line at most once, and may reach none. After a
    gap (a connection that was lost) subscribers are told `Notice("gap")`.

    :cvar is_alone: whether no other process can be on the line, so that nothing need be published.
    """

    is_alone: bool = False

    async def publish(self, notice: Notice) -> None:
        """Tell the others; never fails, and never waits long. A `gap` is not published."""

    def subscribe(self, told: Callable[[Notice], None]) -> None:
        """Call `told` on the reactor's thread with each notice from now on; it must be quick."""
