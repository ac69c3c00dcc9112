"""The adapters of one machine."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from ncps.aio.threads import Workers
from ncps.assembly.databases import database
from ncps.assembly.storage import Stores
from ncps.assembly.stores import stores
from ncps.database.catalog import SqlCatalog
from ncps.database.pool import Database, Observer
from ncps.settings.schema.tree import Settings

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
