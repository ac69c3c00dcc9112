"""Metrics of the store, the catalog, removals and pins."""

from __future__ import annotations

from ncps.observe.labelled import Labelled
from ncps.observe.registry import Registered
from ncps.ports import PinTotals, Totals

DISCARD_BOUNDS = ("count", "size", "age", "room")

_DATABASE = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30)
_RUN = (0.01, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800)


class StoreMetrics(Registered):
    """Stored and removed NARs, and the catalog."""

    def _add_store(self) -> None:
        self.store_size = self._gauge(
            "ncps_store_total_size_bytes", "Bytes of all stored NARs.", way="own"
        )
        self.narinfo_count = self._gauge(
            "ncps_narinfo_count", "Narinfos in the catalog.", way="own"
        )
        self.nar_file_count = self._gauge("ncps_nar_file_count", "NARs in the store.", way="own")

        self.database_seconds = Labelled(
            self._histogram(
                "ncps_database_call_duration_seconds",
                "Time from a call of the database to its answer, waits and repetitions included.",
                "kind",
                _DATABASE,
            ),
            ("point", "read", "write"),
        )

    def _add_eviction(self) -> None:
        self.max_size = self._gauge(
            "ncps_cache_max_size_bytes",
            "Bytes of NARs that the store may hold; 0 for no limit.",
            way="own",
        )
        self.utilization = self._gauge(
            "ncps_cache_utilization_ratio",
            "Bytes of all stored NARs, divided by the bytes that the store may hold.",
            way="own",
        )
        self.lru_runs = self._counter(
            "ncps_lru_cleanup_runs_total", "Runs that removed old NARs, or tried to."
        )
        self.lru_nars = self._counter(
            "ncps_lru_nar_files_evicted_total", "NARs that such runs removed."
        )
        self.lru_narinfos = self._counter(
            "ncps_lru_narinfos_evicted_total", "Narinfos whose NAR such runs removed."
        )
        self.lru_freed = self._counter(
            "ncps_lru_bytes_freed_total", "Bytes that such runs removed."
        )
        self.lru_seconds = self._histogram(
            "ncps_lru_cleanup_duration_seconds", "Duration of such a run.", buckets=_RUN
        )
        self.orphans = self._counter(
            "ncps_orphans_removed_total", "Objects without a record that were removed."
        )
        self.orphans_freed = self._counter(
            "ncps_orphans_bytes_freed_total", "Bytes of these objects."
        )

    def _add_quarantine(self) -> None:
        self.quarantine_files = self._gauge(
            "ncps_quarantine_files",
            "Stored files that were found wrong and are in the quarantine.",
            way="own",
        )
        self.quarantine_size = self._gauge(
            "ncps_quarantine_size_bytes", "Bytes of these files.", way="own"
        )
        self.quarantine_set_aside = self._counter(
            "ncps_quarantine_set_aside_total", "Stored files that were moved into the quarantine."
        )
        self.quarantine_discarded = Labelled(
            self._counter(
                "ncps_quarantine_discarded_total",
                "Files removed from the quarantine, or never moved there, by the limit reached.",
                "bound",
            ),
            DISCARD_BOUNDS,
        )

    def set_totals(self, totals: Totals, max_size: int = 0) -> None:
        """Set the gauges of the catalog and of the largest size of the store, 0 for any size."""
        self.max_size.set(max_size)
        self.utilization.set(totals.bytes_stored / max_size if max_size else 0)
        self.store_size.set(totals.bytes_stored)
        self.narinfo_count.set(totals.narinfos)
        self.nar_file_count.set(totals.nars_stored)

    def set_quarantine(self, files: int, size: int) -> None:
        """Set the gauges of the files and bytes in the quarantine."""
        self.quarantine_files.set(files)
        self.quarantine_size.set(size)

    def _add_pins(self) -> None:
        self.pins = self._gauge("ncps_pins", "Pins.", way="own")
        self.pinned_nars = self._gauge(
            "ncps_pinned_nar_files", "Stored NARs that pins keep.", way="own"
        )
        self.pinned_size = self._gauge("ncps_pinned_size_bytes", "Bytes of these NARs.", way="own")
        self.pinned_missing = self._gauge(
            "ncps_pinned_missing_paths",
            "Paths of pinned closures whose narinfo or NAR is not stored, summed over all pins.",
            way="own",
        )

    def set_pins(self, totals: PinTotals) -> None:
        """Set the gauges of pins."""
        self.pins.set(totals.pins)
        self.pinned_nars.set(totals.nars)
        self.pinned_size.set(totals.size)
        self.pinned_missing.set(totals.missing)
