"""Counts: how much was fetched ahead, how much of that clients used, and how much was dropped."""

from __future__ import annotations

from typing import Final, Literal

from ncps.nix.narurl import NarKey
from ncps.observe.metrics import Metrics

MAX_UNUSED: Final = 50_000
"""Names of fetched narinfos and NARs that no client has asked for yet, remembered at most."""

Why = Literal["queue", "allowance", "room", "idle", "failures", "away", "stopped"]


class PrefetchCounts:
    """Counts in the metrics, and remembers the unused names; the oldest is forgotten first."""

    def __init__(self, metrics: Metrics) -> None:
        self._fetched = metrics.prefetched
        self._used = metrics.prefetched_used
        self._bytes = metrics.prefetched_bytes.inc
        self._dropped = metrics.prefetch_dropped
        self._unused: dict[str | NarKey, None] = {}

    def fetched(self, name: str | NarKey, size: int = 0) -> None:
        """Count a narinfo or a NAR that was fetched ahead.

        :param size: bytes of a NAR.
        """
        self._fetched(_kind(name)).inc()
        self._bytes(size)
        self._unused[name] = None
        if len(self._unused) > MAX_UNUSED:
            del self._unused[next(iter(self._unused))]

    def asked(self, name: str | NarKey) -> None:
        """Take note that a client has asked for a narinfo or a NAR."""
        if name in self._unused:
            del self._unused[name]
            self._used(_kind(name)).inc()

    def dropped(self, why: Why, count: int) -> None:
        """Count things that are not fetched ahead, and why."""
        if count:
            self._dropped(why).inc(count)


def _kind(name: str | NarKey) -> str:
    return "narinfo" if isinstance(name, str) else "nar"
