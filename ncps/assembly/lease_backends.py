"""Leases and notices over Redis or PostgreSQL, as the settings name them.

It is apart from `leases`, so that a daemon on one machine imports neither client.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from ncps.aio.backoff import EXACT, JITTER, Backoff
from ncps.assembly.databases import dialect
from ncps.assembly.parts import Foundation
from ncps.cache.upkeep import evict
from ncps.locks.degraded import DegradedGrants
from ncps.locks.postgresql.locks import PostgresBackend
from ncps.locks.redis.address import Login, RedisAddress
from ncps.locks.redis.carrier import redis_notices
from ncps.locks.redis.locks import RedisBackend
from ncps.locks.redis.node import RedisNode, redis_nodes
from ncps.locks.redis.tls import verified_tls
from ncps.locks.shared import LeaseBackend, SharedLeases
from ncps.ports import Notices
from ncps.settings.schema.locks import RedisSettings
from ncps.settings.schema.tree import Settings


def by_server(base: Foundation, address: str) -> tuple[SharedLeases, Notices]:
    """Make leases and notices over the server of the settings; they connect later.

    Raises Refused if a file of the settings cannot be used.

    :param address: the address at which other processes of this cache reach this one.
    """
    backend, notices = _MAKERS[base.settings.cache.lock.backend](base, address)
    return _shared(base, backend, address), notices


def _of_redis(base: Foundation, address: str) -> tuple[LeaseBackend, Notices]:
    settings = base.settings
    nodes = redis_nodes(
        base.reactor,
        redis_addresses(settings.cache.redis),
        prefix=settings.cache.lock.redis.key_prefix,
        subject=_without(settings),
    )
    for node in nodes:
        up = base.metrics.lock_server_up(node.address.label)
        up.set_function(partial(_is_up, node))
    backend = RedisBackend(
        base.reactor,
        nodes,
        ttl_of=partial(_ttl, settings),
        address=address,
        subject=_without(settings),
    )
    return backend, redis_notices(base.reactor, nodes)


def _is_up(node: RedisNode) -> bool:
    return not node.trouble


def _of_postgresql(base: Foundation, address: str) -> tuple[LeaseBackend, Notices]:
    settings = base.settings
    backend = PostgresBackend(
        base.reactor,
        dialect(settings),
        ttl_s=settings.cache.lock.download_lock_ttl_s,
        address=address,
        subject=_without(settings),
    )
    return backend, backend.notices


_MAKERS: Final[Mapping[str, Callable[[Foundation, str], tuple[LeaseBackend, Notices]]]] = {
    "redis": _of_redis,
    "postgresql": _of_postgresql,
}
"""How to make each backend that reaches more than one machine, and its notices."""


def _shared(base: Foundation, backend: LeaseBackend, address: str) -> SharedLeases:
    lock = base.settings.cache.lock
    return SharedLeases(
        base.reactor,
        backend,
        polls=Backoff(
            first_s=lock.retry.initial_delay_s,
            longest_s=lock.retry.max_delay_s,
            jitter=JITTER if lock.retry.jitter else EXACT,
        ),
        metrics=base.metrics,
        mode=lock.backend,
        degraded=DegradedGrants(address=address) if lock.allow_degraded_mode else None,
    )


def _ttl(settings: Settings, name: str) -> float:
    lock = settings.cache.lock
    return lock.lru_lock_ttl_s if name == evict.LEASE else lock.download_lock_ttl_s


def _without(settings: Settings) -> str:
    """Return, for the log, the effect while the backend is away."""
    if settings.cache.lock.allow_degraded_mode:
        return "several instances may fetch the same object (cache-lock-allow-degraded-mode)"
    return "NARs that are not stored cannot be fetched"


def redis_addresses(redis: RedisSettings) -> list[RedisAddress]:
    """Return the address of each Redis server; the Sentinels lead to one server.

    Raises Refused if a TLS file cannot be used.
    """
    tls = None
    if redis.use_tls:
        tls = verified_tls(redis.tls_ca_file, redis.tls_cert_file, redis.tls_key_file)
    named = tuple((address.host, address.port) for address in redis.addrs)
    return [
        RedisAddress(
            addresses=addresses,
            master=redis.sentinel_master,
            db=redis.db,
            login=Login(username=redis.username, password=redis.password),
            sentinel_login=Login(
                username=redis.sentinel_username, password=redis.sentinel_password
            ),
            tls=tls,
            timeout_s=redis.timeout_s,
        )
        for addresses in ([named] if redis.sentinel_master else [(one,) for one in named])
    ]
