"""The World of the cache core, as the settings and the adapters make it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ncps.aio.spool import Digest, Spool
from ncps.aio.tasks import Tasks
from ncps.ask.choose import Upstreams
from ncps.assembly.parts import Adapters
from ncps.cache.cluster import Cluster
from ncps.cache.world import Events, World
from ncps.observe.metrics import Metrics
from ncps.ports import Notices


def world(
    reactor: Any,
    parts: Adapters,
    tasks: Tasks,
    *,
    cluster: Cluster,
    notices: Notices,
    upstreams: Upstreams,
    events: Events,
) -> World:
    """Put together what the core is made in."""
    return World(
        clock=reactor,
        tasks=tasks,
        threads=parts.workers,
        catalog=parts.catalog,
        inventory=parts.catalog,
        nars=parts.stores.nars,
        narinfos=parts.stores.narinfos,
        cluster=cluster,
        notices=notices,
        upstreams=upstreams,
        new_spool=partial(new_spool, parts),
        events=events,
    )


def counted(metrics: Metrics, stored: Callable[[], object]) -> Events:
    """Have metrics count what the core tells of.

    :param stored: told of each NAR that was stored.
    """

    def ended(outcome: str) -> None:
        metrics.downloads(outcome).inc()
        if outcome == "published":
            stored()

    return Events(
        ended=ended,
        inspected=lambda result: metrics.inspections(result).inc(),
        disagreed=metrics.disagreements.inc,
        set_aside=metrics.quarantine_set_aside.inc,
        discarded=lambda bound: metrics.quarantine_discarded(bound).inc(),
        quarantined=metrics.set_quarantine,
    )


def new_spool(parts: Adapters, total: int | None, digests: tuple[Digest, ...], why: str) -> Spool:
    """Make a spool; without room for its file it is made without one.

    :param why: a reason not to have a file.
    """
    file = None if why else partial(parts.stores.spools.create, "spool")
    return Spool(file=file, workers=parts.workers, digests=digests, total=total, keep_error=why)
