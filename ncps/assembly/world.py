"""The World of the cache core, as the settings and the adapters make it."""

from __future__ import annotations

from functools import partial

from ncps.aio.admission import Admission
from ncps.aio.spool import Digest, Spool
from ncps.aio.tasks import Tasks
from ncps.ask.choose import Upstreams
from ncps.assembly.parts import Adapters, Foundation
from ncps.cache.cluster import Cluster
from ncps.cache.world import World
from ncps.ports import Notices


def world(
    base: Foundation,
    tasks: Tasks,
    *,
    cluster: Cluster,
    notices: Notices,
    upstreams: Upstreams,
) -> World:
    """Put together what the core needs of the world."""
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
    """Make the admission of downloads, and show in the metrics what it has let in."""
    made = Admission(
        base.reactor,
        limits=base.settings.cache.download,
        spare=base.parts.stores.room.spare,
        largest=base.settings.cache.max_size_bytes,
        new_spool=partial(new_spool, base.parts),
        reached=lambda limit: base.metrics.limit_reached(limit).inc(),
    )
    base.metrics.spool_bytes.set_function(lambda: made.in_flight)
    return made


def new_spool(parts: Adapters, total: int | None, digests: tuple[Digest, ...], why: str) -> Spool:
    """Make a spool; without room for its file it is made without one.

    :param why: a reason not to have a file.
    """
    file = None if why else partial(parts.stores.spools.create, "spool")
    return Spool(file=file, workers=parts.workers, digests=digests, total=total, keep_error=why)
