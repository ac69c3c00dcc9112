"""World: everything outside that the cache core works with, as one value.

It lies in the room of the cache and not beside the ports, since threads, spools and the upstreams
as one source are tools above these.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from ncps.aio.spool import Digest, Spool
from ncps.aio.tasks import Tasks
from ncps.aio.threads import Threads
from ncps.ask.choose import Upstreams
from ncps.cache.cluster import Cluster
from ncps.ports import Catalog, Inventory, Leases, NarInfoStore, NarStore, Notices


@frozen(kw_only=True)
class Events:
    """What the core tells of, for the metrics.

    :param ended: told how each download ended: "published", "relayed" (published by another
        process), "unkept", "failed" or "cancelled".
    :param inspected: told what came of each stored NAR that was read once more.
    :param disagreed: told when a second trusted narinfo of a path names another NarHash.
    :param set_aside: told of each file that went into the quarantine.
    :param discarded: told of each file that was discarded, or deleted instead of set aside, and
        of the bound that it was for; `room`: the store had none for it.
    :param quarantined: told after each look how many files there are, and how many bytes they have.
    """

    ended: Callable[[str], object] = lambda _: None
    inspected: Callable[[str], object] = lambda _: None
    disagreed: Callable[[], object] = lambda: None
    set_aside: Callable[[], object] = lambda: None
    discarded: Callable[[str], object] = lambda _: None
    quarantined: Callable[[int, int], object] = lambda _files, _size: None


@frozen(kw_only=True)
class World:
    """What the core is made in.

    :param threads: for what would take long on the reactor's thread.
    :param inventory: the same catalog, for what goes through all of it.
    :param nars: the store of NARs.
    :param narinfos: the store of sidecars.
    :param new_spool: makes a spool for a file of this size (None: unknown) and these digests; one
        that keeps nothing, if there is a reason for that (else empty).
    """

    clock: IReactorTime
    tasks: Tasks
    threads: Threads
    catalog: Catalog
    inventory: Inventory
    nars: NarStore
    narinfos: NarInfoStore
    cluster: Cluster
    notices: Notices
    upstreams: Upstreams
    new_spool: Callable[[int | None, tuple[Digest, ...], str], Spool]
    events: Events = Events()

    @property
    def leases(self) -> Leases:
        """What keeps processes of this cache from doing the same."""
        return self.cluster.leases
