"""Metrics of recompression."""

from __future__ import annotations

from ncps.observe.labelled import Labelled
from ncps.observe.registry import Registered

OUTCOMES = ("made", "joined", "large", "taken", "busy", "failed", "remade")


class RecompressMetrics(Registered):
    """NARs that were recompressed, and the processor time for this."""

    def _add_recompress(self) -> None:
        self.recompressions = Labelled(
            self._counter(
                "ncps_recompressions_total",
                "NARs that were recompressed, by outcome.",
                "outcome",
            ),
            OUTCOMES,
        )
        self.recompress_waiting = self._gauge(
            "ncps_recompress_waiting", "NARs that wait to be recompressed, about."
        )
        self.recompress_read = self._counter(
            "ncps_recompress_read_bytes_total", "Bytes of the files from which a new file was made."
        )
        self.recompress_written = self._counter(
            "ncps_recompress_written_bytes_total", "Bytes of the new files."
        )
        self.recompress_freed = self._counter(
            "ncps_recompress_freed_bytes_total", "Bytes of the former files that were removed."
        )
        self.recompress_cpu = self._counter(
            "ncps_recompress_cpu_seconds_total",
            "Seconds of processor time that the transcoders used.",
        )
