"""Every metric, by name, on one registry object that is passed to whoever counts.

Names taken over from the Go program keep its names and labels exactly; ours follow the same
pattern. A labelled metric is called with its label values and returns the bound child, which it
remembers: `metrics.nar_served("hit", "success", "cache.nixos.org").inc()`. What is known of the
label values at the start exists with 0 from the start, so that a rate never misses the first event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ncps.observe.labelled import Labelled
from ncps.observe.process_metrics import ProcessMetrics
from ncps.observe.snapshots import Way
from ncps.ports import Totals

ROUTES = ("/", "/nix-cache-info", "/pubkey", "/{hash}.narinfo", "/nar/{file}")
PEER_ROUTE = "/cluster/nar/{file}"
PROBES = ("/healthz", "/readyz", "/metrics")
NO_ROUTE = "other"
METHODS = ("GET", "HEAD")
OTHER_METHOD = "_OTHER"  # what OpenTelemetry calls every method that is not a known one

ERROR_KINDS = ("connect", "timeout", "status", "broken", "corrupt", "malformed")
LOCK_MODES = ("local", "files", "redis", "postgresql")
DOWNLOAD_OUTCOMES = ("published", "relayed", "unkept", "failed", "cancelled")

DISCARD_BOUNDS = ("count", "size", "age", "room")

LIMITS = (
    "cache-download-max-count",
    "cache-download-max-spool-size",
    "cache-max-decompression-ratio",
    "cache-max-size",
    "cache-narinfo-max-size",
    "cache-storage-min-free",
    "cache-upstream-max-queue",
    "cache-upstream-max-header-size",
    "cache-upstream-max-redirects",
    "cache-upstream-queue-timeout",
    "server-header-timeout",
    "server-max-connections",
    "server-max-connections-per-address",
    "server-max-header-size",
    "server-max-headers",
    "server-max-requests",
    "server-min-send-rate",
    "server-write-stall-timeout",
)
"""Limits are called by the settings that set them, so that one knows where to turn."""

_LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_DATABASE = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30)
_TRANSFER = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_RUN = (0.01, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800)


class _Settling(Collector):
    """Has no metrics, and is asked for them before all others are."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []

    def collect(self) -> Iterable[Metric]:
        for call in self.calls:
            call()
        return ()


class Metrics:
    """All metrics of one process.

    :param upstreams: names of the configured upstreams, for the series that carry them; the
        empty name stands for "unknown".
    :ivar ways: how the gauges of several workers become one, by name.
    """

    def __init__(self, upstreams: Iterable[str] = ()) -> None:
        disable_created_metrics()
        self.registry = CollectorRegistry(auto_describe=True)
        self.ways: dict[str, Way] = {}
        self._settling = _Settling()
        self.registry.register(self._settling)  # before all others, which it brings up to date
        names = tuple(upstreams)
        self._add_serving(("", *names))
        self._add_store()
        self._add_eviction()
        self._add_quarantine()
        self._add_upstreams(names)
        self._add_locks()
        self._add_http()
        self._add_limits()
        self._add_workers()
        self.process = ProcessMetrics(self.registry)

    def _counter(self, name: str, text: str, labels: str = "") -> Counter:
        return Counter(name, text, labels.split(), registry=self.registry)

    def _gauge(self, name: str, text: str, way: Way = "sum", labels: str = "") -> Gauge:
        """Make a gauge; `way` is how those of several workers become one."""
        self.ways[name] = way
        return Gauge(name, text, labels.split(), registry=self.registry)

    def _histogram(
        self, name: str, text: str, labels: str = "", buckets: Iterable[float] = _LATENCY
    ) -> Histogram:
        return Histogram(name, text, labels.split(), buckets=tuple(buckets), registry=self.registry)

    def _add_serving(self, upstreams: tuple[str, ...]) -> None:
        results, statuses = ("hit", "miss"), ("success", "error")
        self.nar_served = Labelled(
            self._counter(
                "ncps_nar_served_total",
                "NARs asked for, by whether they were stored here and whether they were served.",
                "result status upstream_hostname",
            ),
            results,
            statuses,
            upstreams,
        )
        self.narinfo_served = Labelled(
            self._counter(
                "ncps_narinfo_served_total",
                "narinfos asked for, by whether they were known here and whether they were served.",
                "result status source upstream_hostname",
            ),
            results,
            statuses,
            ("database",),
            upstreams,
        )
        self.bytes_served = Labelled(
            self._counter(
                "ncps_served_bytes_total", "Bytes of response bodies, by route.", "route"
            ),
            (*ROUTES, PEER_ROUTE, *PROBES, NO_ROUTE),
        )

    def _add_store(self) -> None:
        self.store_size = self._gauge(
            "ncps_store_total_size_bytes", "Bytes of all stored NARs.", way="own"
        )
        self.narinfo_count = self._gauge(
            "ncps_narinfo_count", "narinfos in the catalog.", way="own"
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
            "Bytes of NARs the store may hold; 0 for any number.",
            way="own",
        )
        self.utilization = self._gauge(
            "ncps_cache_utilization_ratio",
            "Bytes of all stored NARs by those it may hold.",
            way="own",
        )
        self.lru_runs = self._counter(
            "ncps_lru_cleanup_runs_total", "Runs that removed old NARs, or tried to."
        )
        self.lru_nars = self._counter("ncps_lru_nar_files_evicted_total", "NARs removed by them.")
        self.lru_narinfos = self._counter(
            "ncps_lru_narinfos_evicted_total", "narinfos whose NAR was removed by them."
        )
        self.lru_freed = self._counter(
            "ncps_lru_bytes_freed_total", "Bytes that objects had which were removed by them."
        )
        self.lru_seconds = self._histogram(
            "ncps_lru_cleanup_duration_seconds", "How long such a run took.", buckets=_RUN
        )
        self.orphans = self._counter(
            "ncps_orphans_removed_total", "Objects removed that no record knew."
        )
        self.orphans_freed = self._counter(
            "ncps_orphans_bytes_freed_total", "Bytes of objects removed that no record knew."
        )

    def _add_quarantine(self) -> None:
        self.quarantine_files = self._gauge(
            "ncps_quarantine_files", "Files in the quarantine: stored and found wrong.", way="own"
        )
        self.quarantine_size = self._gauge(
            "ncps_quarantine_size_bytes", "Bytes of these files.", way="own"
        )
        self.quarantine_set_aside = self._counter(
            "ncps_quarantine_set_aside_total", "Stored files that were put into the quarantine."
        )
        self.quarantine_discarded = Labelled(
            self._counter(
                "ncps_quarantine_discarded_total",
                "Files removed from the quarantine, or never put there, by the bound it was for.",
                "bound",
            ),
            DISCARD_BOUNDS,
        )

    def _add_upstreams(self, upstreams: tuple[str, ...]) -> None:
        self.narinfo_fetch_seconds = self._histogram(
            "ncps_upstream_narinfo_fetch_duration_seconds",
            "Time to fetch a narinfo from an upstream.",
        )
        self.nar_fetch_seconds = self._histogram(
            "ncps_upstream_nar_fetch_duration_seconds",
            "Time until the headers of a NAR came from an upstream.",
        )
        # Two gauges, though the first is called _total: the names are given.
        self.upstream_count = self._gauge(
            "ncps_upstream_count_total", "Upstreams that are configured.", way="own"
        )
        self.upstream_count.set(len(upstreams))
        self.upstream_healthy = self._gauge(
            "ncps_upstream_count_healthy", "Upstreams that are thought to be well.", way="least"
        )
        self.upstream_left_out = Labelled(
            self._gauge(
                "ncps_upstream_left_out",
                "Whether an upstream has no say: it has been away for a while, or refuses us.",
                way="most",
                labels="upstream_hostname",
            ),
            upstreams,
        )
        self.bytes_fetched = Labelled(
            self._counter(
                "ncps_fetched_bytes_total",
                "Bytes of NARs fetched from upstreams.",
                "upstream_hostname",
            ),
            upstreams,
        )
        self.bytes_relayed = self._counter(
            "ncps_relayed_bytes_total",
            "Bytes of NARs that came from another process of this cache while it fetched them.",
        )
        self.upstream_errors = Labelled(
            self._counter(
                "ncps_upstream_errors_total",
                "Requests to upstreams that failed, by kind; an absence is no failure.",
                "upstream_hostname kind",
            ),
            upstreams,
            ERROR_KINDS,
        )
        self.downloads = Labelled(
            self._counter(
                "ncps_downloads_total", "Downloads of NARs that ended, by outcome.", "outcome"
            ),
            DOWNLOAD_OUTCOMES,
        )
        self.inspections = Labelled(
            self._counter(
                "ncps_nar_inspections_total",
                "Stored NARs read and compared with their rows, by result.",
                "result",
            ),
            ("right", "wrong", "damaged", "missing"),
        )
        self.disagreements = self._counter(
            "ncps_upstream_disagreements_total",
            "Store paths for which a second trusted narinfo named another NarHash.",
        )
        self.downloads_in_flight = self._gauge(
            "ncps_downloads_in_flight", "Downloads of NARs that are running."
        )

        self.spool_bytes = self._gauge(
            "ncps_spool_bytes",
            "Bytes that running downloads hold, or were promised room for, unpublished.",
        )

    def _add_locks(self) -> None:
        self.lock_acquisitions = Labelled(
            self._counter(
                "ncps_lock_acquisitions_total", "Attempts to take a lock.", "type mode result"
            ),
            ("exclusive",),
            LOCK_MODES,
            ("success", "failure", "contention"),
        )
        self.lock_hold_seconds = Labelled(
            self._histogram(
                "ncps_lock_hold_duration_seconds",
                "How long locks were held.",
                "type mode",
                _TRANSFER,
            ),
            ("exclusive",),
            LOCK_MODES,
        )
        self.lock_backend_up = self._gauge(
            "ncps_lock_backend_up",
            "Whether locks can be had from where they are kept.",
            way="least",
        )
        self.lock_backend_up.set(1)
        self.lock_degraded = self._gauge(
            "ncps_lock_degraded",
            "Whether locks are this process's own because their backend is away.",
            way="most",
        )

    def _add_http(self) -> None:
        self.request_seconds = Labelled(
            self._histogram(
                "http_server_request_duration_seconds",
                "Time from a request's head to the end of its response, as far as Twisted sees it.",
                "http_route http_request_method http_response_status_code",
                _TRANSFER,
            ),
        )
        for route, method in product((*ROUTES, *PROBES), METHODS):
            self.request_seconds(route, method, "200")
        for route, method in product((*ROUTES[-2:], NO_ROUTE), METHODS):
            self.request_seconds(route, method, "404")
        self.active_requests = self._gauge(
            "http_server_active_requests", "Requests that are being answered."
        )
        self.connections = self._gauge(
            "ncps_http_connections", "Connections of clients that are open."
        )
        self.connections_refused = self._counter(
            "ncps_http_connections_refused_total",
            "Connections of clients closed at once because too many were open.",
        )

    def _add_limits(self) -> None:
        self.limit_reached = Labelled(
            self._counter(
                "ncps_limit_reached_total",
                "What was refused, cut or not kept because of a limit, by the limit's setting.",
                "limit",
            ),
            LIMITS,
        )

    def _add_workers(self) -> None:
        self.workers = self._gauge("ncps_workers", "Processes that shall serve.", way="own")
        self.workers.set(1)
        self.workers_answering = self._gauge(
            "ncps_workers_answering", "Processes whose figures are in this answer, gauges included."
        )
        self.workers_answering.set(1)
        self.worker_restarts = self._counter(
            "ncps_worker_restarts_total", "Workers that took the place of one that had ended."
        )

    def before_scrape(self, settle: Callable[[], object]) -> None:
        """Have `settle` called before metrics are read: it counts what was not counted yet."""
        self._settling.calls.append(settle)

    def set_totals(self, totals: Totals, max_size: int = 0) -> None:
        """Show what the catalog counted, beside what the store may hold (0: any number)."""
        self.max_size.set(max_size)
        self.utilization.set(totals.bytes_stored / max_size if max_size else 0)
        self.store_size.set(totals.bytes_stored)
        self.narinfo_count.set(totals.narinfos)
        self.nar_file_count.set(totals.nars_stored)

    def set_quarantine(self, files: int, size: int) -> None:
        """Show what a look at the quarantine found."""
        self.quarantine_files.set(files)
        self.quarantine_size.set(size)
