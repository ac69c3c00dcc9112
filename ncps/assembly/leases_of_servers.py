"""Leases and notices over Redis or PostgreSQL, as the settings name them.

It is apart from `leases`, so that a daemon on one machine imports neither client.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ncps.aio.backoff import EXACT, JITTER, Backoff
from ncps.assembly.databases import dialect
from ncps.cache.upkeep import evict
from ncps.locks.degraded import DegradedGrants
from ncps.locks.local import Observer
from ncps.locks.postgresql.locks import PostgresBackend
from ncps.locks.redis.address import Login, RedisAddress
from ncps.locks.redis.channels import RedisChannels, redis_notices
from ncps.locks.redis.locks import RedisBackend
from ncps.locks.redis.tls import verified_tls
from ncps.locks.shared import LeaseBackend, SharedLeases
from ncps.ports import Notices
from ncps.settings.schema.locks import RedisSettings
from ncps.settings.schema.tree import Settings


def by_server(
    reactor: Any, settings: Settings, observe: Observer, address: str
) -> tuple[SharedLeases, Notices]:
    """Make leases and notices over the server of the settings; connect nothing yet.

    Raises Refused if a file of the settings cannot be used.

    :param address: where the other processes of this cache reach this process.
    """
    if settings.cache.lock.backend == "redis":
        backend, notices = _of_redis(reactor, settings, address)
    else:
        backend, notices = _of_postgresql(reactor, settings, address)
    return _shared(reactor, settings, backend, observe, address), notices


def _of_redis(reactor: Any, settings: Settings, address: str) -> tuple[LeaseBackend, Notices]:
    server = redis_address(settings.cache.redis)
    channels = RedisChannels(reactor, server, prefix=settings.cache.lock.redis.key_prefix)
    backend = RedisBackend(
        reactor,
        channels,
        ttl_of=partial(_ttl, settings),
        address=address,
        subject=_without(settings),
    )
    return backend, redis_notices(backend.client, channels)


def _of_postgresql(reactor: Any, settings: Settings, address: str) -> tuple[LeaseBackend, Notices]:
    backend = PostgresBackend(
        reactor,
        dialect(settings),
        ttl_s=settings.cache.lock.download_lock_ttl_s,
        address=address,
        subject=_without(settings),
    )
    return backend, backend.notices


def _shared(
    reactor: Any, settings: Settings, backend: LeaseBackend, observe: Observer, address: str
) -> SharedLeases:
    lock = settings.cache.lock
    return SharedLeases(
        reactor,
        backend,
        polls=Backoff(
            first_s=lock.retry.initial_delay_s,
            longest_s=lock.retry.max_delay_s,
            jitter=JITTER if lock.retry.jitter else EXACT,
        ),
        observe=observe,
        degraded=DegradedGrants(address=address) if lock.allow_degraded_mode else None,
    )


def _ttl(settings: Settings, name: str) -> float:
    lock = settings.cache.lock
    return lock.lru_lock_ttl_s if name == evict.LEASE else lock.download_lock_ttl_s


def _without(settings: Settings) -> str:
    """Return what cannot be done while the backend is away, for the log."""
    if settings.cache.lock.allow_degraded_mode:
        return "instances fetch without knowing of each other (cache-lock-allow-degraded-mode)"
    return "what is not stored cannot be fetched"


def redis_address(redis: RedisSettings) -> RedisAddress:
    """Make the address of Redis. Raises Refused if a TLS file cannot be used."""
    tls = None
    if redis.use_tls:
        tls = verified_tls(redis.tls_ca_file, redis.tls_cert_file, redis.tls_key_file)
    return RedisAddress(
        addresses=tuple((address.host, address.port) for address in redis.addrs),
        master=redis.sentinel_master,
        db=redis.db,
        login=Login(username=redis.username, password=redis.password),
        sentinel_login=Login(username=redis.sentinel_username, password=redis.sentinel_password),
        tls=tls,
        timeout_s=redis.timeout_s,
    )
