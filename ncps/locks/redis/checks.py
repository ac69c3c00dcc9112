"""Checks that a Redis is configured so that it can keep leases."""

from __future__ import annotations

from twisted.logger import Logger

from ncps.errors import Refused, Unavailable
from ncps.locks.redis.connection import Lost, RedisConnection

NO_REDLOCK = (
    "several independent servers (Redlock) and Redis Cluster are not supported: neither makes"
    " leases safer than one server, since both can lose one when a server restarts or fails over"
)
OLDEST = 5
_log = Logger()


async def examine(connection: RedisConnection) -> None:
    """Check a server after the login. Raises Refused with the problem and a remedy."""
    try:
        text = await connection.command("INFO")
    except Lost:
        raise
    except (Refused, Unavailable) as error:
        _log.warn(
            "cannot see how {server} is configured ({reason}): see to it that it has"
            " maxmemory-policy noeviction, or leases may vanish",
            server=connection.name,
            reason=str(error),
        )
        return
    judge(connection.name, facts(text.decode("utf-8", "replace")))


def facts(info: str) -> dict[str, str]:
    """Read the answer to INFO: lines NAME:VALUE and comments."""
    lines = (line.partition(":") for line in info.splitlines() if not line.startswith("#"))
    return {name: value for name, _, value in lines if name}


def judge(server: str, known: dict[str, str]) -> None:
    """Raise Refused if a server is wrong for leases, with what would help."""
    version = known.get("redis_version", "")
    major = version.partition(".")[0]
    if major.isdigit() and int(major) < OLDEST:
        raise Refused(f"{server} is Redis {version}: leases need Redis {OLDEST} or newer")
    if known.get("cluster_enabled") == "1":
        raise Refused(f"{server} is part of a Redis Cluster: {NO_REDLOCK}; name a single server")
    if known.get("role") == "slave":
        raise Refused(
            f"{server} is a replica, where nothing can be written: name its master, or the"
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
        raise Refused(advice)
    _log.warn("{advice}; it has no maxmemory now, so nothing is dropped yet", advice=advice)
