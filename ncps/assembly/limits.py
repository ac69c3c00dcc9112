"""Limits that are made of several settings, or that are counted by the names of their settings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IReactorTime

from ncps.aio.descriptors import fitting
from ncps.cache.nar.admission import Admission
from ncps.cache.nar.judge import Judge
from ncps.nix.narurl import NarKey
from ncps.observe.metrics import Metrics
from ncps.ports import NarRecord
from ncps.settings.schema.tree import Settings


def reached(counters: Metrics) -> Callable[[str], object]:
    """Make what is told of each limit that is reached, by the flag of its setting."""
    return lambda limit: counters.limit_reached(limit).inc()


def connections_that_fit(settings: Settings, descriptors: int) -> int:
    """How many connections of clients fit beside everything else that may be open.

    :param descriptors: that this process may have.
    """
    upstream = settings.cache.upstream
    transfers = max(1, len(upstream.upstreams)) * upstream.max_connections
    spools = min(settings.cache.download.max_count, transfers)
    databases = settings.cache.database.pool.max_open_conns
    return fitting(
        descriptors,
        connections=settings.server.max_connections,
        requests=settings.server.max_requests,
        others=transfers + spools + databases,
    )


def memory_shares(settings: Settings) -> tuple[int, int]:
    """Bytes for narinfos, and beside them for what makes answers of them that lie ready."""
    size = settings.cache.narinfo_memory_size_bytes
    hot = size * 3 // 8
    return size - hot, hot


def admission(
    clock: IReactorTime, settings: Settings, counters: Metrics, spare: Callable[[], int]
) -> Admission:
    """Make what decides which downloads may begin and be kept.

    :param spare: see `Admission`.
    """
    door = Admission(
        clock,
        limits=settings.cache.download,
        spare=spare,
        largest=settings.cache.max_size_bytes,
        reached=reached(counters),
    )
    counters.spool_bytes.set_function(lambda: door.in_flight)
    return door


def new_judge(settings: Settings, counters: Metrics) -> Callable[[NarKey, NarRecord | None], Judge]:
    """Make what makes the judge of a file."""
    limit = "cache-max-decompression-ratio"
    return partial(
        Judge,
        is_eager=settings.cache.verify_while_arriving,
        max_ratio=settings.cache.max_decompression_ratio,
        reached=partial(reached(counters), limit),
    )
