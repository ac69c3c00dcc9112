"""The other processes of this cache: where they are, and how they know this one."""

from __future__ import annotations

from typing import Any

from ncps.assembly.fetching import VIA
from ncps.cache.relay import Cluster
from ncps.metrics import Metrics
from ncps.ports import Leases
from ncps.settings.model import Settings
from ncps.upstream.peers import PeerClients


def peer_clients(reactor: Any, settings: Settings, counters: Metrics) -> PeerClients:
    """Make what reaches the others; the service closes it."""
    return PeerClients(
        reactor, secret=settings.cluster.secret, via=VIA, took=counters.bytes_relayed.inc
    )


def cluster(settings: Settings, leases: Leases, peers: PeerClients) -> Cluster:
    """Put together what a process needs of the others."""
    return Cluster(
        leases=leases,
        peers=peers,
        address=settings.cluster.advertise_url,
        patience_s=settings.cache.download.poll_timeout_s,
    )
