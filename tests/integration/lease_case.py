"""Leases on a server, taken by replicas that a test starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from ncps.locks.shared import SharedLeases
from ncps.ports import Lease
from tests.contract.running import Contract, start


async def until(is_so: Callable[[], object]) -> None:
    """Poll until something is true; trial's time-out is the deadline."""
    while not is_so():
        await deferLater(reactor, 0.01)


class Replica(Protocol):
    """The leases of one process."""

    @property
    def leases(self) -> SharedLeases: ...


class LeaseCase(Contract, TestCase):
    """Takes leases and waits for them."""

    async def take(self, replica: Replica, name: str = "a") -> Lease:
        """Take a free lease."""
        lease = await replica.leases.try_hold(name)
        assert lease is not None, "somebody has it"
        return lease

    def waiting(self, replica: Replica, name: str = "a") -> Deferred[int]:
        """Wait for a lease; fires with its fence once it was held."""

        async def wait() -> int:
            async with replica.leases.hold(name) as lease:
                return lease.fence

        return start(wait())
