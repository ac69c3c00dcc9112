"""The identity of this daemon among the replicas: its key, and its facts on the roll."""

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
"""Characters of one fact, at most."""
_SALT: Final = b"ncps: fingerprint of the cluster secret"
_DEFAULT: Final = "default"


async def identity_of(parts: Adapters, settings: Settings, role: Role | None) -> CacheIdentity:
    """Decide on the key, and enter this daemon on the roll; see `cache.upkeep.identity.identify`.

    :param role: None to enter no daemon.
    """
    own = None if role is None else own_facts(settings, role)
    return await identity_as(parts, settings, key_wish(settings), own)


async def identity_as(
    parts: Adapters, settings: Settings, wish: KeyWish, own: Replica | None
) -> CacheIdentity:
    """Do the same as `identity_of`, with facts that were read before."""
    return await identify(
        parts.stores.config,
        SqlReplicas(parts.database),
        wish,
        own,
        former_lives(settings, own),
    )


def agreement_of(parts: Adapters, settings: Settings, identity: CacheIdentity) -> Agreement:
    """Make the comparison of this daemon with the other replicas."""
    return Agreement(
        SqlReplicas(parts.database),
        parts.stores.config,
        identity,
        is_alone=settings.cache.database_url.is_file,
    )


def key_wish(settings: Settings) -> KeyWish:
    """Return the settings of the signing key. Raises Refused if its file cannot be used."""
    imported = imported_key(settings)
    return KeyWish(
        hostname=settings.cache.hostname,
        is_named=settings.origin("cache.hostname") != _DEFAULT,
        imported=None if imported is None else SecretKey.parse(imported),
        accepts_new=settings.cache.accept_new_key,
    )


def own_facts(settings: Settings, role: Role) -> Replica:
    """Return the facts of this daemon, except those in the store."""
    store, store_at = _store(settings)
    redis = settings.cache.redis
    backend = settings.cache.lock.backend
    watched = f" {redis.sentinel_master}" if redis.sentinel_master else ""
    on_redis = backend == "redis"
    prefix = f"{redis.db} {settings.cache.lock.redis.key_prefix}"
    return Replica(
        id=role.via,
        host=socket.gethostname()[:LONGEST],
        pid=role.pid,
        version=__version__,
        url=settings.cluster.advertise_url[:LONGEST],
        store=store[:LONGEST],
        store_at=store_at[:LONGEST],
        trusted=keys_text(settings.cache.upstream.public_keys),
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


def keys_text(keys: tuple[str, ...]) -> str:
    """Return a text by which replicas compare their trusted keys."""
    if not keys:
        return "none"
    digest = hashlib.sha256("\n".join(sorted(set(keys))).encode()).hexdigest()[:8]
    names = ", ".join(sorted({key.partition(":")[0] for key in keys}))
    return f"{digest}: {names}"[:LONGEST]


def _secret(settings: Settings) -> str:
    """Return a fingerprint that hides the secret: 32 bits, and each guess takes 16 MiB."""
    if settings.origin("cluster.secret") == _DEFAULT or not settings.cluster.secret:
        return ""  # workers without the setting generate a secret
    secret = settings.cluster.secret.encode()
    return hashlib.scrypt(secret, salt=_SALT, n=2**14, r=8, p=1, dklen=4).hex()


def former_lives(settings: Settings, own: Replica | None) -> Callable[[Replica], bool]:
    """Make the test whether a replica on the roll is a former process of this daemon.

    With the lock of an SQLite file or of a store, this daemon is alone there, so all others with
    the same file or store are. Otherwise it is a replica with the same host and URL whose process
    has ended, or has our process id.
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
    """Whether a process exists; True if that is not known."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return pid > 0
