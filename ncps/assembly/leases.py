"""Leases and notices, as the settings name them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from attrs import frozen

from ncps.aio.backoff import Backoff
from ncps.assembly.cluster import address_of
from ncps.assembly.parts import Foundation
from ncps.errors import Unavailable
from ncps.locks.files import FileBackend
from ncps.locks.local import LocalLeases, LocalNotices
from ncps.locks.shared import SharedLeases
from ncps.ports import Leases, Notices

FILE_POLLS = Backoff(first_s=0.02, longest_s=0.2)
"""Pauses between attempts: no process announces a free lease, and an attempt takes microseconds."""


@frozen(kw_only=True)
class Locking:
    """The leases and notices of this process.

    :ivar shared: the leases if they need a start and a stop; else None.
    """

    leases: Leases
    notices: Notices
    shared: SharedLeases | None = None

    @property
    def trouble(self) -> str:
        """Why this process can get no leases now; empty if it can."""
        return "" if self.shared is None else self.shared.trouble

    async def start(self) -> None:
        """Connect, now or later. Raises Refused if the settings will never work."""
        if self.shared is not None:
            await self.shared.start()

    async def stop(self, deadline_s: float) -> None:
        """Wait for running releases, then disconnect."""
        if self.shared is not None:
            await self.shared.stop(deadline_s)


def locking(base: Foundation) -> Locking:
    """Make leases and notices; they connect later.

    Raises Refused if a file of the settings cannot be used.
    """
    reactor, metrics, role = base.reactor, base.metrics, base.role
    address = address_of(base.settings, role)
    backend = base.settings.cache.lock.backend
    if backend != "local":
        from ncps.assembly.lease_backends import (  # noqa: PLC0415 - one machine needs none
            by_server,
        )

        shared, notices = by_server(base, address)
        metrics.lock_backend_up.set_function(lambda: not shared.trouble)
        metrics.lock_degraded.set_function(lambda: shared.is_degraded)
        return Locking(leases=shared, notices=notices, shared=shared)
    notices = role.notices or LocalNotices()
    if role.leases is None:
        leases = LocalLeases(reactor, metrics, address=address)
        return Locking(leases=leases, notices=notices)
    shared = SharedLeases(
        reactor,
        FileBackend(role.leases, address=address),
        polls=FILE_POLLS,
        metrics=metrics,
        mode="files",
    )
    return Locking(leases=shared, notices=notices, shared=shared)


def alone(
    leases: Leases, name: str, work: Callable[[], Awaitable[None]]
) -> Callable[[], Coroutine[Any, Any, None]]:
    """Return a function that does the work, unless another process of this cache is doing it."""

    async def unless_held() -> None:
        try:
            lease = await leases.try_hold(name)
        except Unavailable:
            return  # the backend logs it; the ticker comes again
        if lease is None:
            return
        try:
            await work()
        finally:
            await lease.release()

    return unless_held
