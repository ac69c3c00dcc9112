"""A World of fakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import evolve
from twisted.internet.task import Clock

from ncps.aio.admission import Admission
from ncps.aio.growing import Digest
from ncps.aio.spool import Spool
from ncps.aio.tasks import Tasks
from ncps.ask.choose import Upstreams
from ncps.cache.cluster import Cluster
from ncps.cache.world import World
from ncps.observe.metrics import Metrics
from ncps.settings.schema.cache import DownloadSettings
from ncps.settings.schema.upstream import UpstreamsSettings
from tests.fakes.catalog import MemoryCatalog
from tests.fakes.closures import MemoryPathGraph, MemoryPins, MemoryRemovals
from tests.fakes.leases import MemoryLeases, MemoryNotices
from tests.fakes.realisations import MemoryRealisations, MemoryRealisationStore
from tests.fakes.spoolfile import CountedFile
from tests.fakes.stores import MemoryNarInfoStore, MemoryNarStore
from tests.fakes.threads import InlineThreads
from tests.fakes.twins import MemoryTwins
from tests.fakes.upstream import ScriptedUpstream


def alone(leases: MemoryLeases) -> Cluster:
    """Make the cluster of a process that can reach no other."""
    return Cluster(leases=leases, patience_s=30.0, pace=UpstreamsSettings())


def fake_world(
    clock: Clock, tasks: Tasks, upstreams: Sequence[ScriptedUpstream] = (), **changes: Any
) -> World:
    """Make a World whose ports are in memory.

    :param changes: parts of it that are others.
    """
    catalog = changes.pop("catalog", None) or MemoryCatalog()
    threads = changes.pop("threads", InlineThreads())
    metrics = changes.pop("metrics", None) or Metrics()

    def new_spool(total: int | None, digests: tuple[Digest, ...], why: str) -> Spool:
        file = None if why else CountedFile
        return Spool(file=file, workers=threads, digests=digests, total=total, keep_error=why)

    world = World(
        clock=clock,
        tasks=tasks,
        threads=threads,
        catalog=catalog,
        inventory=catalog,
        pins=changes.pop("pins", None) or MemoryPins(catalog),
        graph=MemoryPathGraph(catalog),
        removals=changes.pop("removals", None) or MemoryRemovals(catalog),
        twins=changes.pop("twins", None) or MemoryTwins(catalog),
        nars=MemoryNarStore(),
        narinfos=MemoryNarInfoStore(),
        realisations=MemoryRealisations(),
        realisation_copies=MemoryRealisationStore(),
        cluster=alone(MemoryLeases()),
        notices=MemoryNotices(),
        upstreams=Upstreams(clock, tasks, upstreams, metrics),
        admission=Admission(
            clock,
            limits=DownloadSettings(),
            spare=lambda: 10**12,
            new_spool=new_spool,
            reached=lambda _: None,
        ),
        metrics=metrics,
    )
    return evolve(world, **changes)
