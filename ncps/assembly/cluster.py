"""The other processes of this cache, and the address at which they reach this one."""

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
    """Make the value that holds what the core needs of the other processes."""
    settings, is_traced = base.settings, base.tracer.is_on
    return Cluster(
        leases=CalledLeases(leases) if is_traced else leases,
        peers=called(peers, "peer") if is_traced else peers,
        address=address_of(settings, base.role),
        patience_s=settings.cache.download.poll_timeout_s,
        pace=settings.cache.upstream,
    )


def address_of(settings: Settings, role: Role) -> str:
    """Return the address at which other processes of this cache reach this one; empty for none."""
    return "#".join(filter(None, (settings.cluster.advertise_url, role.address)))
