"""Replicas: the facts that each daemon with one catalog announces, and their common key."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Protocol

from attrs import frozen


@frozen(kw_only=True)
class Replica:
    """One daemon, with all its workers; a text is empty if there is no such fact.

    :param id: random, and different for each start of a daemon.
    :param pid: process id of the daemon on `host`; 0 if it is not known.
    :param url: its URL for the others (cluster-advertise-url).
    :param store: path of its directory, or BUCKET/PREFIX.
    :param store_at: DEVICE:INODE of the directory, or the endpoint of the bucket.
    :param cluster: the UUID in the store.
    :param public_key: the key that it signs with, as in `trusted-public-keys`.
    :param trusted: fingerprint of the upstream keys that it trusts.
    :param locks: backend of its locks (cache-lock-backend).
    :param redis: addresses of Redis, or of its Sentinels with the name of the service.
    :param prefix: number of the Redis database and the prefix of its keys.
    :param secret: fingerprint of the cluster's secret.
    """

    id: str
    host: str = ""
    pid: int = 0
    version: str = ""
    url: str = ""
    store: str = ""
    store_at: str = ""
    cluster: str = ""
    public_key: str = ""
    trusted: str = ""
    locks: str = ""
    redis: str = ""
    prefix: str = ""
    secret: str = ""


@frozen
class KnownReplica:
    """A replica, and the time of its last announcement, by the database's clock, to the second."""

    replica: Replica
    at: datetime


@frozen(kw_only=True)
class Roll:
    """The replicas that share the catalog, at one moment.

    :param key: the public key of this cache according to the catalog; None if it has none.
    :param now: the time by the clock of the database, to the second.
    :param seen: replicas that have announced themselves and were not removed, in no order.
    """

    key: str | None
    now: datetime
    seen: tuple[KnownReplica, ...] = ()


class Replicas(Protocol):
    """The roll of a catalog; each method is one transaction.

    Methods raise Unavailable if the database is away, StorageFull if it has no room.
    """

    async def roll(self) -> Roll:
        """Return the roll as it is now."""

    async def claim(
        self, key: str, *, before: str | None, replica: Replica | None, gone: Collection[str] = ()
    ) -> bool | None:
        """Record this key in the catalog, and enter the replica that signs with it.

        Returns whether the replica is new on the roll; of several workers, one gets True. Returns
        None, and writes nothing, if the catalog has another key.

        :param before: the key to replace; None for no key.
        :param replica: None to enter none; then it returns True.
        :param gone: ids of replicas to remove from the roll.
        """

    async def announce(self, replica: Replica) -> Roll:
        """Enter the replica or refresh its entry, with the present time; return the roll.

        It removes entries that were not refreshed for an hour.
        """

    async def withdraw(self, replica_id: str) -> None:
        """Remove a replica from the roll; does nothing if the replica is not on the roll."""
