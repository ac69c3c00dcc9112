"""The daemons that clients ask: one, or several replicas in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from attrs import define, field

LIED_TO, TRUSTING = 0, 2
"""Of three replicas: the one with the swapper, and the one that trusts one more key."""


@define(eq=False)
class Endpoint:
    """A daemon as clients see it.

    :param number: number of the replica; 0 for a single daemon.
    :ivar up: set while the daemon runs; clients wait for it.
    """

    number: int
    port: int
    up: asyncio.Event = field(factory=asyncio.Event)


class Endpoints:
    """Chooses the daemon of the next request: each in turn, as a name with several addresses."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.all = [Endpoint(number, port) for number, port in enumerate(ports)]
        self._turn = 0

    @property
    def are_many(self) -> bool:
        """Whether there are several daemons."""
        return len(self.all) > 1

    def next(self, only: int | None = None) -> Endpoint:
        """Return the next daemon that runs, or the daemon `only`, also if it does not run."""
        if only is not None:
            return self.all[only]
        for _ in self.all:
            self._turn = (self._turn + 1) % len(self.all)
            if self.all[self._turn].up.is_set():
                break
        return self.all[self._turn]
