"""Metrics of prefetch."""

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
                "Narinfos and NARs that were fetched before a client asked for them.",
                "kind",
            ),
            PREFETCH_KINDS,
        )
        self.prefetched_used = Labelled(
            self._counter(
                "ncps_prefetched_used_total",
                "Prefetched narinfos and NARs that a client has asked for since.",
                "kind",
            ),
            PREFETCH_KINDS,
        )
        self.prefetched_bytes = self._counter(
            "ncps_prefetched_bytes_total",
            "Bytes of NARs that were fetched before a client asked for them.",
        )
        self.prefetch_dropped = Labelled(
            self._counter(
                "ncps_prefetch_dropped_total",
                "Narinfos and NARs that were not fetched ahead after all, by the reason.",
                "reason",
            ),
            DROP_REASONS,
        )
        self.prefetch_pending = self._gauge(
            "ncps_prefetch_pending",
            "Narinfos and NARs that wait to be fetched ahead, or are being fetched ahead.",
        )
