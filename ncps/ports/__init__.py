"""The ports: what the cache core needs of the world, and the values that cross the border.

Each port is a Protocol with one contract test class under `tests/contract`, run against a fake
and against every real adapter. All methods run on the reactor's thread and return quickly;
adapters that block use `ncps.aio.threads` inside. Adapters raise the errors of `ncps.errors` only.
"""

from __future__ import annotations

from ncps.ports.bodies import (
    Body,
    Segment,
)
from ncps.ports.catalog import (
    Catalog,
    NarInfoEntry,
    NarRecord,
    Totals,
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
from ncps.ports.replicas import (
    KnownReplica,
    Replica,
    Replicas,
    Roll,
)
from ncps.ports.stores import (
    ConfigStore,
    NarInfoStore,
    NarStore,
    Replaced,
    SetAside,
    Spooled,
    Stat,
)
from ncps.ports.upstreams import (
    Peers,
    Upstream,
    UpstreamBody,
)

__all__ = [
    "Body",
    "Catalog",
    "ConfigStore",
    "EvictedNar",
    "Forgotten",
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
    "Peers",
    "Replaced",
    "Replica",
    "Replicas",
    "Roll",
    "Segment",
    "SetAside",
    "Spooled",
    "Stat",
    "Totals",
    "Upstream",
    "UpstreamBody",
]
