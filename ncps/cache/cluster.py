"""Cluster: what a process needs of the other processes that share its store (P4)."""

from __future__ import annotations

from typing import Final

from attrs import define
from twisted.logger import Logger

from ncps.errors import Unavailable
from ncps.nix.narurl import NarKey
from ncps.observe.decisions import are_logged
from ncps.ports import Lease, Leases, Peers, UpstreamBody
from ncps.settings.schema.upstream import UpstreamsSettings

_log = Logger()


def lease_of(key: NarKey) -> str:
    """Return the name of the lease under which a NAR is fetched, or deleted."""
    return f"download:nar:{key.file_name}"


class FetchLease:
    """The lease under which this process fetches a NAR; its owner releases it.

    :ivar held: the lease; None while this process does not hold it.
    """

    def __init__(self, leases: Leases, key: NarKey) -> None:
        self.held: Lease | None = None
        self.name = lease_of(key)
        self._key = key
        self._leases = leases

    async def is_ours(self) -> bool:
        """Take it if it is free; return whether it is ours. Raises Unavailable if that fails."""
        if self.held is None:
            self.hold(await self._leases.try_hold(self.name))
        return self.held is not None

    def hold(self, lease: Lease | None) -> None:
        """Note that this process has this lease, or None because another process has it."""
        self.held = lease
        if are_logged():
            held = f"this process has its lease, number {lease.fence}" if lease else ""
            _log.debug(
                "download of {key}: {held}",
                key=self._key.file_name,
                held=held or "another process has its lease",
            )

    async def release(self) -> None:
        """Release the lease, if it is ours; idempotent."""
        lease, self.held = self.held, None
        if lease is not None:
            await lease.release()


class NoPeers(Peers):
    """No other process of this cache can be reached."""

    async def find_nar(self, address: str, key: NarKey) -> str:
        raise Unavailable("no address of another process is trusted")

    async def open_nar(self, address: str, key: NarKey, *, offset: int = 0) -> UpstreamBody:
        raise Unavailable("no address of another process is trusted")


NO_PEERS: Final = NoPeers()


@define(kw_only=True, eq=False)
class Cluster:
    """The other processes of the cache. A reload replaces the pace.

    :param address: the address at which the others reach this process; empty if they cannot.
    :param patience_s: seconds to wait for a holder that cannot be reached.
    :param pace: the least rate of a holder; below it, another process may take its free lease.
    """

    leases: Leases
    patience_s: float
    pace: UpstreamsSettings
    peers: Peers = NO_PEERS
    address: str = ""

    async def is_fetched_elsewhere(self, key: NarKey) -> bool:
        """Return whether another process holds the lease of a NAR and may have the file."""
        try:
            address = await self.leases.holder(lease_of(key))
        except Unavailable:
            return False
        return address not in {"", self.address}
