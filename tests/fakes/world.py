"""A World of fakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import evolve
from twisted.internet.task import Clock

from ncps.aio.spool import Digest, Spool
from ncps.aio.tasks import Tasks
from ncps.ask.choose import Upstreams
from ncps.cache.cluster import Cluster
from ncps.cache.world import World
from tests.fakes.catalog import MemoryCatalog
from tests.fakes.leases import MemoryLeases, MemoryNotices
from tests.fakes.spoolfile import CountedFile
from tests.fakes.stores import MemoryNarInfoStore, MemoryNarStore
from tests.fakes.threads import InlineThreads
from tests.fakes.upstream import ScriptedUpstream


def fake_world(
    clock: Clock, tasks: Tasks, upstreams: Sequence[ScriptedUpstream] = (), **changes: Any
) -> World:
    """Make a World whose ports are in memory.

    :param changes: parts of it that are others.
    """
    catalog = changes.pop("catalog", None) or MemoryCatalog()
    threads = changes.pop("threads", None) or InlineThreads()

    def new_spool(total: int | None, digests: tuple[Digest, ...], why: str) -> Spool:
        file = None if why else CountedFile
        return Spool(file=file, workers=threads, digests=digests, total=total, keep_error=why)

    world = World(
        clock=clock,
        tasks=tasks,
        threads=threads,
        catalog=catalog,
        inventory=catalog,
        nars=MemoryNarStore(),
        narinfos=MemoryNarInfoStore(),
        cluster=Cluster(leases=MemoryLeases()),
        notices=MemoryNotices(),
        upstreams=Upstreams(clock, tasks, upstreams),
        new_spool=new_spool,
    )
    return evolve(world, **changes)
