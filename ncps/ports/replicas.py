"""Replicas: the facts that daemons with one catalog tell of themselves, and their common key."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Protocol

from attrs import frozen


@frozen(kw_only=True)
class Replica:
    """One daemon, with all its workers; a text is empty where there is nothing to tell.

    :param id: random, another one for each start of a daemon.
    :param pid: process id of the daemon on `host`; 0 if it is not known.
    :param url: where the others reach it (cluster-advertise-url).
    :param store: path of its directory, or BUCKET/PREFIX.
    :param store_at: DEVICE:INODE of the directory, or the endpoint of the bucket.
    :param cluster: UUID that lies in the store.
    :param public_key: the key that it signs with, as `trusted-public-keys` has it.
    :param trusted: fingerprint of the upstream keys that it trusts.
    :param locks: backend of locks: local, redis or postgresql.
    :param redis: addresses of Redis, or of its Sentinels and what they watch.
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
    """A replica, and when it last told of itself, by the clock of the database, to the second."""

    replica: Replica
    at: datetime


@frozen(kw_only=True)
class Roll:
    """The replicas that share the catalog, at one moment.

    :param key: the public key that the catalog knows as the one that this cache signs with; None
        if it knows none.
    :param now: the time by the clock of the database, to the second.
    :param seen: replicas that have told of themselves and were not removed, in no order.
    """

    key: str | None
    now: datetime
    seen: tuple[KnownReplica, ...] = ()


class Replicas(Protocol):
    """The roll of a catalog; each method is one transaction.

    Raises Unavailable if the database is away, StorageFull if it has no room.
    """

    async def roll(self) -> Roll:
        """Return the roll as it is now."""

    async def claim(
        self, key: str, *, before: str | None, replica: Replica | None, gone: Collection[str] = ()
    ) -> bool | None:
        """Have the catalog know this key, and enter the replica that signs with it.

        Returns whether the replica was not on the roll before; of several workers, one gets True.
        Returns None, and writes nothing, if the catalog knows another key.

        :param before: the key that is replaced; None for no key at all.
        :param replica: None to enter none; the answer is then true.
        :param gone: ids of replicas that are removed from the roll.
        """

    async def announce(self, replica: Replica) -> Roll:
        """Enter the replica or refresh its entry, with the time of now; return the roll with it.

        Entries that were not refreshed for an hour are removed.
        """

    async def withdraw(self, replica_id: str) -> None:
        """Remove a replica from the roll; does nothing if the replica is not on the roll."""
