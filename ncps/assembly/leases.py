"""Leases and notices, as the settings name them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from attrs import frozen

from ncps.assembly.cluster import address_of
from ncps.assembly.databases import dialect
from ncps.cache import evict
from ncps.errors import Unavailable
from ncps.locks.files import FileRegistry
from ncps.locks.local import LocalLeases, LocalNotices
from ncps.locks.postgresql import PostgresRegistry
from ncps.locks.redis import RedisRegistry
from ncps.locks.redis_channels import RedisChannels, redis_notices
from ncps.locks.redis_link import Login, RedisPlace
from ncps.locks.redis_tls import verified_tls
from ncps.locks.shared import Polls, Registry, SharedLeases
from ncps.metrics import Metrics
from ncps.place import Place
from ncps.ports import Leases, Notices
from ncps.settings.model import RedisSettings, Settings

FILE_POLLS = Polls(initial_s=0.02, longest_s=0.2)
"""Nobody announces that the lease of another process is free; to look costs a few microseconds."""


@frozen(kw_only=True)
class Locking:
    """What this process and the others of its cache agree by.

    :ivar shared: the leases, if there is something to start and to stop.
    """

    leases: Leases
    notices: Notices
    shared: SharedLeases | None = None

    @property
    def trouble(self) -> str:
        """Why leases cannot be had now; empty if they can."""
        return "" if self.shared is None else self.shared.trouble

    async def start(self) -> None:
        """Connect. Refused: the settings will never work; what is away is waited for later."""
        if self.shared is not None:
            await self.shared.start()

    async def stop(self, deadline_s: float) -> None:
        """Give back what is held, and disconnect."""
        if self.shared is not None:
            await self.shared.stop(deadline_s)


def locking(
    reactor: Any,
    settings: Settings,
    counters: Metrics,
    place: Place,
) -> Locking:
    """Make them; nothing is connected yet. Refused: a file of the settings cannot be used.

    :param place: what reaches no farther than this machine is for workers of one daemon.
    """
    address = address_of(settings, place)
    backend = settings.cache.lock.backend
    if backend == "redis":
        return _of_redis(reactor, settings, counters, address)
    if backend == "postgresql":
        return _of_postgresql(reactor, settings, counters, address)
    notices = place.notices or LocalNotices()
    if place.leases is None:
        leases = LocalLeases(reactor, partial(_observe, counters, "local"), address=address)
        return Locking(leases=leases, notices=notices)
    shared = SharedLeases(
        reactor,
        FileRegistry(place.leases, address=address),
        polls=FILE_POLLS,
        observe=partial(_observe, counters, "files"),
        address=address,
    )
    return Locking(leases=shared, notices=notices, shared=shared)


def alone(
    leases: Leases, name: str, work: Callable[[], Awaitable[None]]
) -> Callable[[], Coroutine[Any, Any, None]]:
    """Make work that does nothing while another process of this cache is at it."""

    async def unless_held() -> None:
        try:
            lease = await leases.try_hold(name)
        except Unavailable:
            return  # said elsewhere; the next time will do
        if lease is None:
            return
        try:
            await work()
        finally:
            await lease.release()

    return unless_held


def _of_redis(reactor: Any, settings: Settings, counters: Metrics, address: str) -> Locking:
    place = redis_place(settings.cache.redis)
    prefix = settings.cache.lock.redis.key_prefix
    channels = RedisChannels(reactor, place, prefix=prefix)
    registry = RedisRegistry(
        reactor,
        place,
        channels,
        prefix=prefix,
        ttl_of=partial(_ttl, settings),
        address=address,
        subject=_without(settings),
    )
    shared = _shared(reactor, settings, counters, registry, address)
    return Locking(leases=shared, notices=redis_notices(registry.link, channels), shared=shared)


def _of_postgresql(reactor: Any, settings: Settings, counters: Metrics, address: str) -> Locking:
    registry = PostgresRegistry(
        reactor,
        dialect(settings),
        ttl_s=settings.cache.lock.download_lock_ttl_s,
        address=address,
        subject=_without(settings),
    )
    shared = _shared(reactor, settings, counters, registry, address)
    return Locking(leases=shared, notices=registry.notices, shared=shared)


def _shared(
    reactor: Any, settings: Settings, counters: Metrics, registry: Registry, address: str
) -> SharedLeases:
    lock = settings.cache.lock
    shared = SharedLeases(
        reactor,
        registry,
        polls=Polls(
            initial_s=lock.retry.initial_delay_s,
            longest_s=lock.retry.max_delay_s,
            is_jittered=lock.retry.jitter,
        ),
        observe=partial(_observe, counters, lock.backend),
        may_degrade=lock.allow_degraded_mode,
        address=address,
    )
    counters.lock_backend_up.set_function(lambda: not shared.trouble)
    counters.lock_degraded.set_function(lambda: shared.is_degraded)
    return shared


def _observe(counters: Metrics, mode: str, what: str, seconds: float) -> None:
    if what == "held":
        counters.lock_hold_seconds("exclusive", mode).observe(seconds)
    else:
        counters.lock_acquisitions("exclusive", mode, what).inc()


def _ttl(settings: Settings, name: str) -> float:
    lock = settings.cache.lock
    return lock.lru_lock_ttl_s if name == evict.LEASE else lock.download_lock_ttl_s


def _without(settings: Settings) -> str:
    """Say what is not so while the backend is away."""
    if settings.cache.lock.allow_degraded_mode:
        return "instances fetch without knowing of each other (cache-lock-allow-degraded-mode)"
    return "what is not stored cannot be fetched"


def redis_place(redis: RedisSettings) -> RedisPlace:
    """Make what says where Redis is. Refused: a TLS file cannot be used."""
    tls = None
    if redis.use_tls:
        tls = verified_tls(redis.tls_ca_file, redis.tls_cert_file, redis.tls_key_file)
    return RedisPlace(
        addresses=tuple((address.host, address.port) for address in redis.addrs),
        master=redis.sentinel_master,
        db=redis.db,
        login=Login(username=redis.username, password=redis.password),
        sentinel_login=Login(username=redis.sentinel_username, password=redis.sentinel_password),
        tls=tls,
        timeout_s=redis.timeout_s,
    )
