"""Troubles of the servers behind replicas: killed, restarted, stopped, refusing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random

from attrs import define, frozen

from tests.chaos.score import Score
from tests.chaos.world import World
from tests.cluster.replicas import Backends


@frozen
class Trouble:
    """A fault of a server.

    :param begin: blocks until it has begun.
    :param end: blocks until the server works again.
    :param lasts_s: seconds, at least and at most.
    """

    name: str
    begin: Callable[[], object]
    end: Callable[[], object]
    lasts_s: tuple[float, float]


def catalogue(backends: Backends) -> Sequence[Trouble]:
    """Return the possible faults of the servers."""
    redis, database, s3 = backends.redis, backends.database, backends.s3
    return [
        Trouble("Redis killed", redis.kill, redis.start, (0.0, 4.0)),
        Trouble("Redis paused", redis.freeze, redis.thaw, (1.0, 6.0)),
        Trouble("database killed", database.crash, database.start, (0.0, 3.0)),
        Trouble("database stopped", database.stop, database.start, (0.0, 3.0)),
        Trouble("database paused", database.freeze, database.thaw, (1.0, 6.0)),
        Trouble("S3 paused", s3.freeze, s3.thaw, (1.0, 6.0)),
        Trouble("S3 refuses", s3.stop, s3.start, (0.0, 4.0)),
    ]


@define(eq=False)
class Troubles:
    """Causes faults of the servers, and tells the world their times."""

    world: World
    score: Score
    tell: Callable[[str], object]

    async def have(self, trouble: Trouble, chance: Random) -> None:
        """Cause one trouble and end it, also when this is cancelled meanwhile."""
        lasts = chance.uniform(*trouble.lasts_s)
        self.tell(f"{trouble.name} for {lasts:.1f} s")
        self.score.add(f"trouble: {trouble.name}")
        self.world.trouble_begins()
        try:
            await asyncio.to_thread(trouble.begin)
            await asyncio.sleep(lasts)
        finally:
            await asyncio.shield(asyncio.to_thread(trouble.end))
            self.world.trouble_ends()
