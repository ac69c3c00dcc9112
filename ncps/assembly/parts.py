"""The adapters of one process, and the foundation of all its parts."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from ncps.aio.threads import Workers
from ncps.assembly.databases import database
from ncps.assembly.role import Role
from ncps.assembly.storage import Stores
from ncps.assembly.stores import stores
from ncps.database.catalog import SqlCatalog
from ncps.database.pins import SqlPins
from ncps.database.pool import Database
from ncps.database.realisations import SqlRealisations
from ncps.database.references import SqlPathGraph
from ncps.database.removals import SqlRemovals
from ncps.database.tokens import SqlTokens
from ncps.database.twins import SqlTwins
from ncps.observe.metrics import Metrics
from ncps.observe.tracing.spans import NO_TRACER, Tracer
from ncps.settings.schema.tree import Settings

THREADS = 4


@frozen(kw_only=True)
class Adapters:
    """The adapters of one process; `Runtime` opens and closes them."""

    workers: Workers
    stores: Stores
    database: Database
    catalog: SqlCatalog
    pins: SqlPins
    graph: SqlPathGraph
    removals: SqlRemovals
    twins: SqlTwins
    tokens: SqlTokens
    realisations: SqlRealisations


@frozen(kw_only=True)
class Foundation:
    """The values from which every part of a process is made.

    :ivar metrics: the metrics of this process.
    :ivar tracer: begins the traces of this process.
    """

    reactor: Any
    settings: Settings
    parts: Adapters
    metrics: Metrics
    role: Role
    tracer: Tracer = NO_TRACER


def adapters(reactor: Any, settings: Settings, metrics: Metrics) -> Adapters:
    """Make the adapters; they open nothing yet."""
    workers = Workers(reactor, "disk", THREADS)
    connected = database(reactor, settings, metrics)
    return Adapters(
        workers=workers,
        stores=stores(reactor, settings, metrics),
        database=connected,
        catalog=SqlCatalog(connected),
        pins=SqlPins(connected),
        graph=SqlPathGraph(connected),
        removals=SqlRemovals(connected),
        twins=SqlTwins(connected),
        tokens=SqlTokens(connected),
        realisations=SqlRealisations(connected),
    )
