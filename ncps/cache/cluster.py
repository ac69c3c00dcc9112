"""Cluster: how a process of this cache stands to the others that share its store (P4)."""

from __future__ import annotations

from typing import Final

from attrs import field, frozen

from ncps.errors import Unavailable
from ncps.nix.narurl import NarKey
from ncps.ports import Leases, Peers, UpstreamBody
from ncps.settings.schema.upstream import UpstreamsSettings


def lease_of(key: NarKey) -> str:
    """Return the name of the lease under which a NAR is fetched, or deleted."""
    return f"download:nar:{key.file_name}"


class NoPeers(Peers):
    """No other process of this cache can be reached."""

    async def find_nar(self, address: str, key: NarKey) -> str:
        raise Unavailable("no address of another process is trusted")

    async def open_nar(self, address: str, key: NarKey, *, offset: int = 0) -> UpstreamBody:
        raise Unavailable("no address of another process is trusted")


NO_PEERS: Final = NoPeers()


@frozen(kw_only=True)
class Cluster:
    """What a process needs of the others.

    :param address: where the others reach this one; empty if they cannot.
    :param patience_s: how long a holder that cannot be reached is waited for.
    :param pace: has the least that a holder has to send, while its lease is free.
    """

    leases: Leases
    peers: Peers = NO_PEERS
    address: str = ""
    patience_s: float = 30.0
    pace: UpstreamsSettings = field(factory=UpstreamsSettings)

    async def is_fetched_elsewhere(self, key: NarKey) -> bool:
        """Whether another process holds the lease of a NAR, and can be asked for the file."""
        try:
            address = await self.leases.holder(lease_of(key))
        except Unavailable:
            return False
        return address not in {"", self.address}
