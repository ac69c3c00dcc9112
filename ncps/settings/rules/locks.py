"""The rules of the settings of locks and of Redis."""

from __future__ import annotations

from collections import Counter
from typing import Final

from ncps.settings.draft import Draft
from ncps.settings.kinds.values import show_duration

LONGEST_TTL_S: Final = 30.0
"""Longest time for which the locks of a dead instance block others; live holders renew theirs."""
_LOCK, _REDIS = "cache.lock.", "cache.redis."
_TTLS: Final = (
    ("cache-lock-download-ttl", f"{_LOCK}download_lock_ttl_s"),
    ("cache-lock-lru-ttl", f"{_LOCK}lru_lock_ttl_s"),
)


def decide_locks(draft: Draft) -> None:
    """Choose the backend, and check that it has the settings that it needs."""
    values, problems, warnings = draft.values, draft.problems, draft.warnings
    backend, addrs = values.get(f"{_LOCK}backend"), values.get(f"{_REDIS}addrs")
    if not isinstance(addrs, tuple):
        return
    if backend == "local" and addrs:
        values[f"{_LOCK}backend"] = backend = "redis"
        warnings.append(
            "cache-redis-addrs is given: locks are kept there as if cache-lock-backend were redis"
        )
    if backend == "redis":
        problems.extend(_problems_of_redis(values, addrs))
        if len(addrs) % 2 == 0 and addrs and not values.get(f"{_REDIS}sentinel_master"):
            warnings.append(
                f"cache-redis-addrs has {len(addrs)} servers: locks need"
                f" {len(addrs) // 2 + 1} of them, so no more of them may be away than of"
                f" {len(addrs) - 1}; give an odd number"
            )
        if getattr(values.get("cache.database_url"), "is_file", False):
            warnings.append(
                "cache-lock-backend redis is for instances on several machines, but SQLite is for"
                " one: if there are several, name the same PostgreSQL or MySQL database for all in"
                " cache-database-url; else each removes from a shared store the objects that only"
                " the others know"
            )
    elif backend == "postgresql":
        database = getattr(values.get("cache.database_url"), "dialect", "postgresql")
        if database != "postgresql":
            problems.append(
                "cache-lock-backend: postgresql needs a cache-database-url of PostgreSQL, not of"
                f" {database}"
            )
        if addrs:
            warnings.append("cache-redis-addrs has no effect with cache-lock-backend postgresql")
    if backend != "local":
        _cut_times(values, warnings)
    problems.extend(_problems_of_times(values))


def _cut_times(values: dict[str, object], warnings: list[str]) -> None:
    """Shorten lock times, since many configurations have the long defaults of the Go program."""
    timeout = values.get(f"{_REDIS}timeout_s")
    longest = max(LONGEST_TTL_S, 3 * timeout if isinstance(timeout, float) else 0.0)
    cut = []
    for flag, attribute in _TTLS:
        ttl = values.get(attribute)
        if isinstance(ttl, float) and ttl > longest:
            cut.append(f"{flag} {show_duration(ttl)}")
            values[attribute] = longest
    if cut:
        warnings.append(
            f"{' and '.join(cut)} {'are' if len(cut) > 1 else 'is'} shortened to"
            f" {show_duration(longest)}: locks are renewed while they are held, and an instance"
            " that died must not block the others for longer; leave the setting out"
        )


def _problems_of_redis(values: dict[str, object], addrs: tuple[object, ...]) -> list[str]:
    problems = []
    has_sentinel = bool(values.get(f"{_REDIS}sentinel_master"))
    if not addrs:
        problems.append("cache-redis-addrs: cache-lock-backend redis needs the address of a server")
    twice = [str(addr) for addr, times in Counter(addrs).items() if times > 1]
    if twice and not has_sentinel:
        problems.append(
            f"cache-redis-addrs: {', '.join(twice)} should be there once: a server that counts"
            " twice makes no majority"
        )
    certificate = values.get(f"{_REDIS}tls_cert_file")
    key = values.get(f"{_REDIS}tls_key_file")
    if (certificate is None) != (key is None):
        problems.append("cache-redis-tls-cert-file and cache-redis-tls-key-file go together")
    files = (certificate, key, values.get(f"{_REDIS}tls_ca_file"))
    if any(file is not None for file in files) and not values.get(f"{_REDIS}use_tls"):
        problems.append("cache-redis-use-tls: should be true if TLS files are given")
    return problems


def _problems_of_times(values: dict[str, object]) -> list[str]:
    problems = []
    timeout = values.get(f"{_REDIS}timeout_s")
    for flag, attribute in _TTLS:
        ttl = values.get(attribute)
        if isinstance(ttl, float) and isinstance(timeout, float) and ttl < 3 * timeout:
            problems.append(
                f"{flag}: should be at least {show_duration(3 * timeout)}, three times"
                " cache-redis-timeout, or a slow answer loses the lock"
            )
    first, longest = (
        values.get(f"{_LOCK}retry.initial_delay_s"),
        values.get(f"{_LOCK}retry.max_delay_s"),
    )
    if isinstance(first, float) and isinstance(longest, float) and first > longest:
        problems.append(
            "cache-lock-retry-initial-delay: should not be more than cache-lock-retry-max-delay"
        )
    return problems
