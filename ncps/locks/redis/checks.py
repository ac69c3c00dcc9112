"""Checks of the configuration of a Redis that shall keep leases."""

from __future__ import annotations

from twisted.logger import Logger

from ncps.errors import Refused, Unavailable
from ncps.locks.redis.connection import Lost, RedisConnection

OLDEST = 5
_log = Logger()


class Evicts(Refused):
    """The server may drop leases when its memory is full.

    :ivar identity: of the server, see `examine`.
    """

    def __init__(self, message: str, identity: str) -> None:
        super().__init__(message)
        self.identity = identity


class Identities:
    """The server behind each address: two addresses of one server count as one."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, str]] = {}

    def enter(self, place: str, server: str, identity: str) -> None:
        """Record the server at an address that is connected now.

        Raises Refused if it is the server at another address.

        :param identity: of the server's process; empty if it is unknown.
        """
        for other, (other_server, other_identity) in self._known.items():
            if other != place and identity and other_identity == identity:
                raise Refused(
                    f"{server} is the same Redis server as {other_server}: give each server once in"
                    " cache-redis-addrs, because a server that counts twice makes no majority"
                )
        self._known[place] = (server, identity)

    def leave(self, place: str) -> None:
        """Forget an address that is not connected any more."""
        self._known.pop(place, None)


async def examine(connection: RedisConnection) -> str:
    """Check a server after the login; return its identity, which changes with each of its starts.

    The identity is empty if it is unknown. Raises Refused with the problem and a remedy; Evicts, a
    subclass, if the server can be used nevertheless.
    """
    try:
        text = await connection.command("INFO")
    except Lost:
        raise
    except (Refused, Unavailable) as error:
        _log.warn(
            "cannot see how {server} is configured ({reason}): set its"
            " maxmemory-policy to noeviction, or it may drop leases, and name no server twice",
            server=connection.name,
            reason=str(error),
        )
        return ""
    known = facts(text.decode("utf-8", "replace"))
    judge(connection.name, known)
    return known.get("run_id", "")


def facts(info: str) -> dict[str, str]:
    """Read the answer to INFO: lines NAME:VALUE and comments."""
    lines = (line.partition(":") for line in info.splitlines() if not line.startswith("#"))
    return {name: value for name, _, value in lines if name}


def judge(server: str, known: dict[str, str]) -> None:
    """Raise Refused, with a remedy, if a server is unsuitable for leases."""
    version = known.get("redis_version", "")
    major = version.partition(".")[0]
    if major.isdigit() and int(major) < OLDEST:
        raise Refused(f"{server} is Redis {version}: leases need Redis {OLDEST} or newer")
    if known.get("cluster_enabled") == "1":
        raise Refused(
            f"{server} is part of a Redis Cluster, which keeps each lease on one of its members"
            " only: name a single server, or 3 or 5 independent ones"
        )
    if known.get("role") == "slave":
        raise Refused(
            f"{server} is a replica, which accepts no writes: name its master, or the"
            " Sentinels and cache-redis-sentinel-master"
        )
    policy = known.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return
    advice = (
        f"{server} drops keys when its memory is full (maxmemory-policy {policy}), leases among"
        " them: set maxmemory-policy noeviction, or give ncps a Redis of its own"
    )
    if known.get("maxmemory", "0") != "0":
        raise Evicts(advice, known.get("run_id", ""))
    _log.warn("{advice}; it has no maxmemory now, so nothing is dropped yet", advice=advice)
