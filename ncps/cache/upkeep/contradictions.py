"""Contradictions: settings that must be the same in two replicas of one cache, and are not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from ncps.ports import Replica, Roll
from ncps.settings.schema.locks import SHARED

LIVE: Final = timedelta(seconds=60)
"""A replica that has not renewed its entry for longer counts as gone."""

_SHARED: Final = " or ".join(SHARED)

Compare = Callable[[Replica, Replica], str]


def living(roll: Roll, own_id: str) -> list[Replica]:
    """Return the other replicas whose entries were renewed within the last minute."""
    return [
        seen.replica
        for seen in roll.seen
        if seen.replica.id != own_id and roll.now - seen.at <= LIVE
    ]


def known_as(replica: Replica) -> str:
    """Return the address, process and host by which operators know a replica."""
    process = f"process {replica.pid} on {replica.host}"
    return f"{replica.url} ({process})" if replica.url else process


def contradictions(own: Replica, other: Replica) -> dict[str, str]:
    """Return a sentence for each setting that must agree and does not, by a name for the kind."""
    return _found(_CONTRADICTIONS, own, other)


def differences(own: Replica, other: Replica) -> dict[str, str]:
    """Return a sentence for each setting that may differ and does, by a name for the kind."""
    return _found(_DIFFERENCES, own, other)


def _found(kinds: dict[str, Compare], own: Replica, other: Replica) -> dict[str, str]:
    return {kind: text for kind, compare in kinds.items() if (text := compare(own, other))}


def _both(own: Replica, other: Replica) -> str:
    return f"this replica, {known_as(own)}, and {known_as(other)}"


def _differ(one: str, two: str) -> bool:
    """Return whether both have a value, and these differ; entries of older programs lack some."""
    return bool(one and two) and one != two


def _secret(own: Replica, other: Replica) -> str:
    if not _differ(own.secret, other.secret):
        return ""
    return (
        f"{_both(own, other)} have different secrets (cluster-secret): neither gives the other a"
        " NAR that is on its way; give all replicas the same"
    )


def _address(own: Replica, other: Replica) -> str:
    if not own.url or own.url != other.url:
        return ""
    return (
        f"{_both(own, other)} have one address (cluster-advertise-url={own.url}): a replica"
        " that looks for a NAR which one of them fetches may ask the other; give each replica an"
        " address of its own"
    )


def _locks(own: Replica, other: Replica) -> str:
    if own.locks == other.locks == "local":
        return (
            f"{_both(own, other)} have locks that reach no other daemon (cache-lock-backend=local):"
            f" neither knows what the other fetches or removes; give all replicas {_SHARED}"
        )
    if not _differ(own.locks, other.locks):
        return ""
    return (
        f"{_both(own, other)} have different locks (cache-lock-backend={own.locks} and"
        f" {other.locks}): neither knows what the other fetches or removes; give all replicas the"
        " same"
    )


def _prefix(own: Replica, other: Replica) -> str:
    if own.locks != "redis" or not _differ(own.prefix, other.prefix):
        return ""
    return (
        f"{_both(own, other)} have different names for their locks in Redis (cache-redis-db and"
        f" cache-lock-redis-key-prefix: {own.prefix} and {other.prefix}): neither knows what the"
        " other fetches or removes; give all replicas the same"
    )


def _servers(own: Replica, other: Replica) -> str:
    servers, other_servers = own.redis.split(", "), other.redis.split(", ")
    if not _differ(own.redis, other.redis) or len(servers) == len(other_servers):
        return ""
    if " " in servers[-1] or " " in other_servers[-1]:
        return ""  # Sentinels: each of them names the same server
    return (
        f"{_both(own, other)} have different numbers of Redis servers (cache-redis-addrs:"
        f" {own.redis} and {other.redis}): a majority of the one's servers is no majority of the"
        " other's, so both may hold one lock; give all replicas the same servers"
    )


def _store(own: Replica, other: Replica) -> str:
    if not own.store or not other.store or _share_bucket(own, other):
        return ""
    right = (
        "give all replicas the same bucket (cache-storage-s3-bucket), or each a database of its own"
        " (cache-database-url)"
    )
    if _share_directory(own, other):
        return (
            f"{_both(own, other)} use one directory ({_where(own)} and {_where(other)}), which is"
            f" for one daemon alone; {right}"
        )
    return (
        f"{_both(own, other)} have one database and different stores (cache-storage-s3-bucket,"
        f" cache-storage-local: {_where(own)} and {_where(other)}): each counts on bytes that"
        f" only the other has; {right}"
    )


def _is_directory(replica: Replica) -> bool:
    return replica.store.startswith("/")


def _where(replica: Replica) -> str:
    if _is_directory(replica):
        return f"{replica.store} on {replica.host}"
    return f"{replica.store} at {replica.store_at or 'AWS'}"


def _share_bucket(own: Replica, other: Replica) -> bool:
    """Return whether both have one bucket: its endpoint may have two names, but one UUID."""
    if _is_directory(own) or _is_directory(other) or own.store != other.store:
        return False
    return own.store_at == other.store_at or own.cluster == other.cluster


def _share_directory(own: Replica, other: Replica) -> bool:
    """Return whether both have one directory; over NFS device numbers differ, inodes do not."""
    if not (_is_directory(own) and _is_directory(other)):
        return False
    one, two = own.store_at.rpartition(":")[2], other.store_at.rpartition(":")[2]
    return own.cluster == other.cluster and one == two


def _key(own: Replica, other: Replica) -> str:
    if not _differ(own.public_key, other.public_key):
        return ""
    return (
        f"{_both(own, other)} sign with different keys ({own.public_key} and {other.public_key}):"
        " clients that trust one refuse what the other signs; give all replicas the same key, by"
        " config/cache.key in one store or by cache-secret-key-path, and restart the one that has"
        " another"
    )


def _trusted(own: Replica, other: Replica) -> str:
    if not _differ(own.trusted, other.trusted):
        return ""
    return (
        f"{_both(own, other)} trust different upstream keys (cache-upstream-public-key:"
        f" {own.trusted} and {other.trusted})"
    )


def _redis(own: Replica, other: Replica) -> str:
    if not _differ(own.redis, other.redis) or _servers(own, other):
        return ""
    return (
        f"{_both(own, other)} have different addresses of Redis (cache-redis-addrs: {own.redis} and"
        f" {other.redis}), which is right only if they lead to the same servers"
    )


_CONTRADICTIONS: Final[dict[str, Compare]] = {
    "key": _key,
    "store": _store,
    "secret": _secret,
    "address": _address,
    "locks": _locks,
    "prefix": _prefix,
    "servers": _servers,
}
_DIFFERENCES: Final[dict[str, Compare]] = {"trusted": _trusted, "redis": _redis}
