"""The ports: the interfaces that the cache core needs, and the values that cross them.

Each port is a Protocol. Most have a contract test class under `tests/contract`, run against a fake
and against every real adapter. All methods run on the reactor's thread and return quickly;
adapters that block use `ncps.aio.threads` inside. Adapters raise only the errors of `ncps.errors`
and their subclasses.
"""

from __future__ import annotations

from ncps.ports.bodies import (
    Body,
    GrowingBody,
    Reopen,
    Segment,
    SteadyFile,
    is_growing,
)
from ncps.ports.catalog import (
    Catalog,
    NarInfoEntry,
    NarRecord,
    Totals,
)
from ncps.ports.documents import Documents
from ncps.ports.extras import (
    EXTRA_KINDS,
    ExtraKey,
    ExtraKind,
    ExtraStat,
    ExtraStore,
)
from ncps.ports.inventory import (
    EvictedNar,
    Forgotten,
    IdleNar,
    Inventory,
)
from ncps.ports.leases import (
    Lease,
    Leases,
    Notice,
    NoticeKind,
    Notices,
)
from ncps.ports.pins import (
    Pin,
    Pins,
    PinTotals,
)
from ncps.ports.realisations import (
    RealisationEntry,
    Realisations,
    RealisationStore,
)
from ncps.ports.references import (
    PathFacts,
    PathGraph,
)
from ncps.ports.removals import (
    Block,
    Blocked,
    Erased,
    Removals,
)
from ncps.ports.replicas import (
    KnownReplica,
    Replica,
    Replicas,
    Roll,
)
from ncps.ports.stores import (
    SMALL,
    ConfigStore,
    NarInfoStore,
    NarStore,
    Replaced,
    SetAside,
    Spooled,
    Stat,
)
from ncps.ports.tokens import (
    Token,
    Tokens,
    TokenTable,
)
from ncps.ports.transcoding import (
    Order,
    Transcoded,
    Transcoder,
)
from ncps.ports.twins import TwinCandidates, Twins
from ncps.ports.upstreams import (
    Peers,
    Upstream,
    UpstreamBody,
)

__all__ = [
    "EXTRA_KINDS",
    "SMALL",
    "Block",
    "Blocked",
    "Body",
    "Catalog",
    "ConfigStore",
    "Documents",
    "Erased",
    "EvictedNar",
    "ExtraKey",
    "ExtraKind",
    "ExtraStat",
    "ExtraStore",
    "Forgotten",
    "GrowingBody",
    "IdleNar",
    "Inventory",
    "KnownReplica",
    "Lease",
    "Leases",
    "NarInfoEntry",
    "NarInfoStore",
    "NarRecord",
    "NarStore",
    "Notice",
    "NoticeKind",
    "Notices",
    "Order",
    "PathFacts",
    "PathGraph",
    "Peers",
    "Pin",
    "PinTotals",
    "Pins",
    "RealisationEntry",
    "RealisationStore",
    "Realisations",
    "Removals",
    "Reopen",
    "Replaced",
    "Replica",
    "Replicas",
    "Roll",
    "Segment",
    "SetAside",
    "Spooled",
    "Stat",
    "SteadyFile",
    "Token",
    "TokenTable",
    "Tokens",
    "Totals",
    "Transcoded",
    "Transcoder",
    "TwinCandidates",
    "Twins",
    "Upstream",
    "UpstreamBody",
    "is_growing",
]
