"""Where clients knock: at the one daemon, or at several replicas in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from attrs import define, field

LIED_TO, TRUSTING = 0, 2
"""Of three replicas: the one that has a liar of its own, and the one that trusts a key more."""


@define(eq=False)
class Door:
    """A daemon as clients see it.

    :param number: of the replica; 0 for one that is alone.
    :ivar up: whether it is up; clients that find nobody wait here as `systemd` users would.
    """

    number: int
    port: int
    up: asyncio.Event = field(factory=asyncio.Event)


class Doors:
    """The daemon of the next request: each in turn, as with a name of several addresses."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.all = [Door(number, port) for number, port in enumerate(ports)]
        self._turn = 0

    @property
    def are_many(self) -> bool:
        """Whether a client asks another one each time."""
        return len(self.all) > 1

    def next(self, only: int | None = None) -> Door:
        """The next one that is up, or `only` that one, whether or not it is."""
        if only is not None:
            return self.all[only]
        for _ in self.all:
            self._turn = (self._turn + 1) % len(self.all)
            if self.all[self._turn].up.is_set():
                break
        return self.all[self._turn]
