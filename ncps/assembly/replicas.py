"""Who this daemon is among the replicas: its key, and what it tells the others of itself."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable
from typing import Final

from ncps import __version__
from ncps.assembly.databases import database_lock
from ncps.assembly.keys import imported_key
from ncps.assembly.parts import Adapters
from ncps.assembly.role import Role
from ncps.cache.upkeep.agreement import Agreement
from ncps.cache.upkeep.identity import CacheIdentity, KeyWish, identify
from ncps.database.replicas import SqlReplicas
from ncps.nix.keys import SecretKey
from ncps.ports import Replica
from ncps.settings.schema.tree import Settings

LONGEST: Final = 300
"""Characters of one fact."""
_SALT: Final = b"ncps: fingerprint of the cluster secret"
_DEFAULT: Final = "default"


async def identity_of(parts: Adapters, settings: Settings, place: Role | None) -> CacheIdentity:
    """Decide on the key, and enter this daemon on the roll; see `cache.upkeep.identity.identify`.

    :param place: None to enter nobody.
    """
    own = None if place is None else own_facts(settings, place)
    return await identify(
        parts.stores.config,
        SqlReplicas(parts.database),
        key_wish(settings),
        own,
        former_lives(settings, own),
    )


def agreement_of(parts: Adapters, settings: Settings, identity: CacheIdentity) -> Agreement:
    """Make what compares this daemon with the others."""
    return Agreement(
        SqlReplicas(parts.database),
        parts.stores.config,
        identity,
        is_alone=settings.cache.database_url.is_file,
    )


def key_wish(settings: Settings) -> KeyWish:
    """What the settings say of the signing key. Refused."""
    imported = imported_key(settings)
    return KeyWish(
        hostname=settings.cache.hostname,
        is_named=settings.origin("cache.hostname") != _DEFAULT,
        imported=None if imported is None else SecretKey.parse(imported),
        accepts_new=settings.cache.accept_new_key,
    )


def own_facts(settings: Settings, place: Role) -> Replica:
    """What this daemon tells of itself, but for what lies in the store."""
    store, store_at = _store(settings)
    redis = settings.cache.redis
    backend = settings.cache.lock.backend
    watched = f" {redis.sentinel_master}" if redis.sentinel_master else ""
    on_redis = backend == "redis"
    prefix = f"{redis.db} {settings.cache.lock.redis.key_prefix}"
    return Replica(
        id=place.via,
        host=socket.gethostname()[:LONGEST],
        pid=place.pid,
        version=__version__,
        url=settings.cluster.advertise_url[:LONGEST],
        store=store[:LONGEST],
        store_at=store_at[:LONGEST],
        trusted=_trusted(settings.cache.upstream.public_keys),
        locks=backend,
        redis=(", ".join(sorted(map(str, redis.addrs))) + watched)[:LONGEST] if on_redis else "",
        prefix=prefix[:LONGEST] if on_redis else "",
        secret=_secret(settings),
    )


def _store(settings: Settings) -> tuple[str, str]:
    root = settings.cache.storage.local
    if root is None:
        s3 = settings.cache.storage.s3
        return f"{s3.bucket}/{s3.prefix.strip('/')}", s3.endpoint
    facts = root.stat()
    return str(root.absolute()), f"{facts.st_dev}:{facts.st_ino}"


def _trusted(keys: tuple[str, ...]) -> str:
    if not keys:
        return "none"
    digest = hashlib.sha256("\n".join(sorted(set(keys))).encode()).hexdigest()[:8]
    names = ", ".join(sorted({key.partition(":")[0] for key in keys}))
    return f"{digest}: {names}"[:LONGEST]


def _secret(settings: Settings) -> str:
    """A fingerprint from which nobody finds the secret: 32 bits, each guess at 16 MiB of memory."""
    if settings.origin("cluster.secret") == _DEFAULT or not settings.cluster.secret:
        return ""  # workers have one of their own making
    secret = settings.cluster.secret.encode()
    return hashlib.scrypt(secret, salt=_SALT, n=2**14, r=8, p=1, dklen=4).hex()


def former_lives(settings: Settings, own: Replica | None) -> Callable[[Replica], bool]:
    """Make what tells whether a replica on the roll is this daemon before it was killed.

    Whoever holds the lock of an SQLite file or of a directory is alone there. Elsewhere it is one
    of the same host and address whose process is gone, or has the number of ours.
    """
    is_alone = database_lock(settings) is not None
    is_local = settings.cache.storage.local is not None

    def is_former(other: Replica) -> bool:
        if own is None or other.id == own.id:
            return False
        if is_alone:
            return True
        if other.host != own.host:
            return False
        if is_local and (other.store, other.store_at) == (own.store, own.store_at):
            return True
        return other.url == own.url and (other.pid == own.pid or not _is_running(other.pid))

    return is_former


def _is_running(pid: int) -> bool:
    """Whether there is such a process; what cannot be told is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return pid > 0
