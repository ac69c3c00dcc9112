"""Metrics of recompression."""

from __future__ import annotations

from ncps.observe.labelled import Labelled
from ncps.observe.registry import Registered

OUTCOMES = ("made", "joined", "large", "taken", "busy", "failed", "remade")


class RecompressMetrics(Registered):
    """NARs that were compressed anew, and what that cost."""

    def _add_recompress(self) -> None:
        self.recompressions = Labelled(
            self._counter(
                "ncps_recompressions_total",
                "NARs that were compressed anew, by outcome.",
                "outcome",
            ),
            OUTCOMES,
        )
        self.recompress_waiting = self._gauge(
            "ncps_recompress_waiting", "NARs that wait to be compressed anew, about."
        )
        self.recompress_read = self._counter(
            "ncps_recompress_read_bytes_total", "Bytes of the files that got another one."
        )
        self.recompress_written = self._counter(
            "ncps_recompress_written_bytes_total", "Bytes of the files that were made from them."
        )
        self.recompress_freed = self._counter(
            "ncps_recompress_freed_bytes_total", "Bytes of the former files that were removed."
        )
        self.recompress_cpu = self._counter(
            "ncps_recompress_cpu_seconds_total",
            "Seconds of a processor that compressing anew took, without this process.",
        )
