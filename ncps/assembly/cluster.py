"""The other processes of this cache: where they are, and how they know this one."""

from __future__ import annotations

from ncps.assembly.parts import Foundation
from ncps.assembly.role import Role
from ncps.cache.cluster import Cluster
from ncps.observe.tracing.calls import CalledLeases, called
from ncps.ports import Leases
from ncps.settings.schema.tree import Settings
from ncps.upstream.peers import PeerClients


def peer_clients(base: Foundation) -> PeerClients:
    """Make the clients of the other processes; `Runtime` closes them."""
    return PeerClients(
        base.reactor,
        secret=base.settings.cluster.secret,
        via=base.role.via,
        metrics=base.metrics,
        siblings=base.role.siblings,
    )


def cluster(base: Foundation, leases: Leases, peers: PeerClients) -> Cluster:
    """Put together what a process needs of the others."""
    settings, is_traced = base.settings, base.tracer.is_on
    return Cluster(
        leases=CalledLeases(leases) if is_traced else leases,
        peers=called(peers, "peer") if is_traced else peers,
        address=address_of(settings, base.role),
        patience_s=settings.cache.download.poll_timeout_s,
        pace=settings.cache.upstream,
    )


def address_of(settings: Settings, role: Role) -> str:
    """Where the other processes of this cache reach this one; empty if they cannot."""
    return "#".join(filter(None, (settings.cluster.advertise_url, role.address)))
