"""The World of the cache core, made from the settings and the adapters."""

from __future__ import annotations

from functools import partial
from typing import Final

from ncps.aio.admission import Admission
from ncps.aio.growing import Digest, Estimated
from ncps.aio.small_spool import Budget, SmallSpool
from ncps.aio.spool import Spool
from ncps.aio.tasks import Tasks
from ncps.ask.choose import Upstreams
from ncps.assembly.parts import Adapters, Foundation
from ncps.cache.cluster import Cluster
from ncps.cache.world import World
from ncps.ports import SMALL, Notices

MEMORY: Final = 64 * 1024 * 1024
"""Bytes of small files in memory, at most; further ones get a spool on disk."""


def world(
    base: Foundation,
    tasks: Tasks,
    *,
    cluster: Cluster,
    notices: Notices,
    upstreams: Upstreams,
) -> World:
    """Make the World of the core."""
    parts = base.parts
    return World(
        clock=base.reactor,
        tasks=tasks,
        threads=parts.workers,
        catalog=parts.catalog,
        inventory=parts.catalog,
        pins=parts.pins,
        graph=parts.graph,
        removals=parts.removals,
        twins=parts.twins,
        nars=parts.stores.nars,
        narinfos=parts.stores.narinfos,
        realisations=parts.realisations,
        realisation_copies=parts.stores.realisations,
        cluster=cluster,
        notices=notices,
        upstreams=upstreams,
        admission=admission(base),
        metrics=base.metrics,
        tracer=base.tracer,
    )


def admission(base: Foundation) -> Admission:
    """Make the admission of downloads, and show the bytes that it has admitted in the metrics."""
    made = Admission(
        base.reactor,
        limits=base.settings.cache.download,
        spare=base.parts.stores.room.spare,
        largest=base.settings.cache.max_size_bytes,
        new_spool=partial(new_spool, base.parts),
        reached=lambda limit: base.metrics.limit_reached(limit).inc(),
    )
    made.small = SmallSpools(base).make
    base.metrics.spool_bytes.set_function(lambda: made.in_flight)
    return made


def new_spool(parts: Adapters, total: int | None, digests: tuple[Digest, ...], why: str) -> Spool:
    """Make a spool, with a file unless there is a reason against it.

    :param why: the reason to have no file, such as a full disk; empty for none.
    """
    file = None if why else partial(parts.stores.spools.create, "spool")
    return Spool(file=file, workers=parts.workers, digests=digests, total=total, keep_error=why)


class SmallSpools:
    """Makes the spools of small files in memory, within a budget."""

    def __init__(self, base: Foundation) -> None:
        self._clock = base.reactor
        self._parts = base.parts
        self._most = min(base.settings.cache.download.small_size_bytes, SMALL)
        self._budget = Budget(MEMORY)
        self._count = base.metrics.short_ways("nar").inc

    def make(self, size: int, digests: tuple[Estimated, ...]) -> SmallSpool | None:
        """Make a spool for `size` bytes; None if they are too many, or the budget is used up."""
        if size > self._most or not self._budget.take(size):
            return None
        self._count()
        return SmallSpool(
            self._clock,
            workers=self._parts.workers,
            digests=digests,
            total=size,
            budget=self._budget,
        )
