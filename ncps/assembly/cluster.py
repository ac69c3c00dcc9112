"""The other processes of this cache: where they are, and how they know this one."""

from __future__ import annotations

from typing import Any

from ncps.assembly.role import Role
from ncps.cache.cluster import Cluster
from ncps.observe.metrics import Metrics
from ncps.ports import Leases
from ncps.settings.schema.tree import Settings
from ncps.upstream.peers import PeerClients


def peer_clients(reactor: Any, settings: Settings, counters: Metrics, place: Role) -> PeerClients:
    """Make what reaches the others; the service closes it."""
    return PeerClients(
        reactor,
        secret=settings.cluster.secret,
        via=place.via,
        took=counters.bytes_relayed.inc,
        siblings=place.siblings,
    )


def cluster(settings: Settings, leases: Leases, peers: PeerClients, place: Role) -> Cluster:
    """Put together what a process needs of the others."""
    return Cluster(
        leases=leases,
        peers=peers,
        address=address_of(settings, place),
        patience_s=settings.cache.download.poll_timeout_s,
        pace=settings.cache.upstream,
    )


def address_of(settings: Settings, place: Role) -> str:
    """Where the other processes of this cache reach this one; empty if they cannot."""
    return "#".join(filter(None, (settings.cluster.advertise_url, place.address)))
