"""World: everything outside the cache core that the core uses, as one value.

It is part of the cache and not of the ports, because it has threads, spools and the upstreams as
one source, which are above the ports.
"""

from __future__ import annotations

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from ncps.aio.admission import Admission
from ncps.aio.tasks import Tasks
from ncps.aio.threads import Threads
from ncps.ask.choose import Upstreams
from ncps.cache.cluster import Cluster
from ncps.observe.metrics import Metrics
from ncps.observe.tracing.spans import NO_TRACER, Tracer
from ncps.ports import (
    Catalog,
    Inventory,
    Leases,
    NarInfoStore,
    NarStore,
    Notices,
    PathGraph,
    Pins,
    Realisations,
    RealisationStore,
    Removals,
    Twins,
)


@frozen(kw_only=True)
class World:
    """The World of a core.

    :param threads: for work that would take long in the reactor's thread.
    :param inventory: the catalog, for passes through all of it.
    :param pins: the pins in the catalog.
    :param graph: the paths in the catalog, with their references.
    :param removals: removes records from the catalog.
    :param twins: the records of twins in the catalog.
    :param nars: the store of NARs.
    :param narinfos: the store of sidecars.
    :param realisations: the index of realisations.
    :param realisation_copies: the store of uploaded realisations.
    :param admission: decides which downloads may begin, and makes their spools.
    :param tracer: for work that no request began.
    """

    clock: IReactorTime
    tasks: Tasks
    threads: Threads
    catalog: Catalog
    inventory: Inventory
    pins: Pins
    graph: PathGraph
    removals: Removals
    twins: Twins
    nars: NarStore
    narinfos: NarInfoStore
    realisations: Realisations
    realisation_copies: RealisationStore
    cluster: Cluster
    notices: Notices
    upstreams: Upstreams
    admission: Admission
    metrics: Metrics
    tracer: Tracer = NO_TRACER

    @property
    def leases(self) -> Leases:
        """The leases that keep processes of this cache from doing the same work."""
        return self.cluster.leases
