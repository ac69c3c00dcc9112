"""Metrics of what is fetched ahead."""

from __future__ import annotations

from ncps.observe.labelled import Labelled
from ncps.observe.registry import Registered

PREFETCH_KINDS = ("narinfo", "nar")
DROP_REASONS = ("queue", "allowance", "room", "idle", "failures", "away", "stopped")


class PrefetchMetrics(Registered):
    """Narinfos and NARs that were fetched before a client asked for them."""

    def _add_prefetch(self) -> None:
        self.prefetched = Labelled(
            self._counter(
                "ncps_prefetched_total",
                "Things that were fetched ahead, before any client had asked for them.",
                "kind",
            ),
            PREFETCH_KINDS,
        )
        self.prefetched_used = Labelled(
            self._counter(
                "ncps_prefetched_used_total",
                "Those of them that a client has asked for since.",
                "kind",
            ),
            PREFETCH_KINDS,
        )
        self.prefetched_bytes = self._counter(
            "ncps_prefetched_bytes_total", "Bytes of NARs that were fetched ahead."
        )
        self.prefetch_dropped = Labelled(
            self._counter(
                "ncps_prefetch_dropped_total",
                "Things that were to be fetched ahead and are left to clients, by the reason.",
                "reason",
            ),
            DROP_REASONS,
        )
        self.prefetch_pending = self._gauge(
            "ncps_prefetch_pending",
            "Things that wait for being fetched ahead, or are being fetched so.",
        )
