"""The adapters of one machine."""

from __future__ import annotations

from functools import partial
from typing import Any

from attrs import frozen

from ncps.aio.spool import Digest, Spool
from ncps.aio.tasks import Tasks
from ncps.aio.threads import Workers
from ncps.assembly.databases import database
from ncps.assembly.storage import Stores
from ncps.assembly.stores import stores
from ncps.cache.nar.adopt import Adoption
from ncps.cache.nar.quarantine import Quarantine, QuarantineBounds
from ncps.database.catalog import SqlCatalog
from ncps.database.pool import Database, Observer
from ncps.observe.metrics import Metrics
from ncps.ports import Leases
from ncps.settings.model import Settings

THREADS = 4


class Timings:
    """Passes on how long calls of the database took, once there is somebody to tell.

    :ivar tell: "point", "read" or "write", and the seconds.
    """

    def __init__(self) -> None:
        self.tell: Observer = lambda _kind, _seconds: None

    def __call__(self, kind: str, seconds: float) -> None:
        self.tell(kind, seconds)


@frozen(kw_only=True)
class Adapters:
    """The adapters of one machine; the service opens and closes what needs it."""

    workers: Workers
    stores: Stores
    database: Database
    catalog: SqlCatalog
    timings: Timings


def adapters(reactor: Any, settings: Settings) -> Adapters:
    """Make the adapters; nothing is opened yet."""
    workers = Workers(reactor, "disk", THREADS)
    timings = Timings()
    connected = database(reactor, settings, timings)
    return Adapters(
        workers=workers,
        stores=stores(reactor, settings),
        database=connected,
        catalog=SqlCatalog(connected),
        timings=timings,
    )


def quarantine(
    reactor: Any,
    settings: Settings,
    parts: Adapters,
    tasks: Tasks,
    leases: Leases,
    counters: Metrics,
) -> Quarantine:
    """Make what keeps the files that were found wrong."""
    limits = settings.cache.quarantine
    return Quarantine(
        clock=reactor,
        tasks=tasks,
        store=parts.stores.nars,
        leases=leases,
        bounds=QuarantineBounds(
            count=limits.max_count, size=limits.max_size_bytes, age_s=limits.max_age_s
        ),
        was_set_aside=counters.quarantine_set_aside.inc,
        discarded=lambda bound: counters.quarantine_discarded(bound).inc(),
        left=counters.set_quarantine,
    )


def adoption(
    reactor: Any, parts: Adapters, tasks: Tasks, leases: Leases, wrong: Quarantine
) -> Adoption:
    """Make what takes over bytes without a row.

    :param wrong: takes those that are not what their narinfo says.
    """
    return Adoption(
        clock=reactor,
        tasks=tasks,
        catalog=parts.catalog,
        store=parts.stores.nars,
        quarantine=wrong,
        workers=parts.workers,
        leases=leases,
    )


def new_spool(parts: Adapters, total: int | None, digests: tuple[Digest, ...], why: str) -> Spool:
    """Make a spool; without room for its file it is made without one.

    :param why: a reason not to have a file.
    """
    file = None if why else partial(parts.stores.spools.create, "spool")
    return Spool(file=file, workers=parts.workers, digests=digests, total=total, keep_error=why)
