"""Leases and notices: how the processes of one cache agree, and what they tell each other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

from attrs import frozen


class Lease(Protocol):
    """A held lease; releasing twice is harmless, and a release never fails."""

    @property
    def is_lost(self) -> bool:
        """Whether somebody else may hold it now: the guarded work must not be committed."""

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
    is written down with every lease, so that they may find who is at work.
    """

    def hold(self, name: str) -> AbstractAsyncContextManager[Lease]:
        """Wait for the lease (cancellable) and hold it. Unavailable if leases cannot be had."""

    async def try_hold(self, name: str) -> Lease | None:
        """Take the lease if it is free; None if somebody holds it. Unavailable."""

    async def holder(self, name: str) -> str:
        """Return the address of who holds it now; empty: nobody, or it told none. Unavailable.

        May be out of date when it arrives; good for finding somebody, never for deciding.
        """


NoticeKind = Literal["narinfo", "nar", "absent", "gap"]


@frozen
class Notice:
    """What one replica tells the others, so that they forget what is no longer so.

    :param kind: `narinfo`: the narinfo of a digest was stored, replaced or forgotten; `nar`: the
        bytes or the record of a NAR changed; `absent`: a digest or NAR that was absent is so no
        more; `gap`: notices may have been missed, all that is remembered is in doubt.
    :param name: digest or NAR file name; empty for `gap`.
    """

    kind: NoticeKind
    name: str = ""


class Notices(Protocol):
    """What replicas tell each other, best effort: nothing may depend on an arrival.

    A notice reaches every other object on the same line at most once, and may reach none. After a
    gap (a connection that was lost) subscribers are told `Notice("gap")`.
    """

    async def publish(self, notice: Notice) -> None:
        """Tell the others; never fails, and never waits long. A `gap` is not published."""

    def subscribe(self, told: Callable[[Notice], None]) -> None:
        """Call `told` on the reactor's thread with each notice from now on; it must be quick."""
