"""Leases and notices: exclusion and messages among the processes of one cache."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal, Protocol

from attrs import frozen


class Lease(Protocol):
    """A held lease; `release` is idempotent and never fails."""

    @property
    def is_lost(self) -> bool:
        """Whether another process may hold the lease now: do not commit the guarded work."""

    @property
    def fence(self) -> int:
        """The number of this grant, larger than that of every earlier grant of the same name.

        The holder writes it together with its work. So a holder that has lost its lease without
        noticing cannot overwrite the work of its successor. 0 if there is only one process.
        """

    async def release(self) -> None: ...


class Leases(Protocol):
    """Mutual exclusion by name, fair within a process, not re-entrant.

    Each object is made with the `address` of its process. Every lease contains this address, so
    that other processes can find the holder.
    """

    async def take(self, name: str) -> Lease:
        """Wait for the lease (cancellable); the caller releases it.

        Raises Unavailable if no lease can be taken.
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
        """Return the address of the holder; empty if there is no holder, or it has no address.

        The answer may be out of date: use it to find a process, never to decide. Raises Unavailable
        if the holder is unknown.
        """


NoticeKind = Literal["narinfo", "nar", "absent", "realisation", "gap"]


@frozen
class Notice:
    """A message of one replica to the others, so that they forget facts that have changed.

    :param kind: `narinfo`: the narinfo of a digest was stored, replaced or forgotten; `nar`: the
        bytes or the record of a NAR changed; `absent`: a digest or NAR is no longer absent;
        `realisation`: a realisation was stored, replaced or forgotten; `gap`: notices may be
        missing, so no remembered fact is certain.
    :param name: digest, NAR file name, or path of a realisation; empty for `gap`.
    """

    kind: NoticeKind
    name: str = ""


class Notices(Protocol):
    """Messages among replicas, best effort: nothing may depend on an arrival.

    A notice reaches every other process at most once, and may reach none. After a lost connection
    subscribers get `Notice("gap")`.

    :cvar is_alone: whether there can be no other process, so that no notice need be published.
    """

    is_alone: bool = False

    async def publish(self, notice: Notice) -> None:
        """Send a notice to the others; never fails, never waits long. Do not publish a `gap`."""

    def subscribe(self, subscriber: Callable[[Notice], None]) -> None:
        """Call `subscriber` with each notice from now on, on the reactor's thread: be quick."""
