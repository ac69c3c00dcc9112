"""All metrics, as attributes of one object that each counting part receives.

Metrics of the Go program have exactly its names and labels; ours follow the same pattern. To call
a labelled metric with its label values returns the child, which it remembers:
`metrics.nar_served("hit", "success", "cache.nixos.org").inc()`. Series whose label values are
known at the start begin with 0, so that a rate includes the first event.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

from ncps.observe.auth_metrics import AuthMetrics
from ncps.observe.extra_metrics import EXTRA_ROUTES, ExtraMetrics
from ncps.observe.labelled import Labelled
from ncps.observe.prefetch_metrics import PrefetchMetrics
from ncps.observe.process_metrics import ProcessMetrics, WorkerMetrics
from ncps.observe.realisation_metrics import RealisationMetrics
from ncps.observe.recompress_metrics import RecompressMetrics
from ncps.observe.registry import Registered
from ncps.observe.store_metrics import StoreMetrics
from ncps.observe.tls_metrics import TlsMetrics
from ncps.observe.upload_metrics import UploadMetrics
from ncps.settings.declare import settings_of
from ncps.settings.schema.locks import BACKENDS
from ncps.settings.schema.tree import Settings

ROUTES = ("/", "/nix-cache-info", "/pubkey", *EXTRA_ROUTES, "/{hash}.narinfo", "/nar/{file}")
API_ROUTES = (
    "/api/v1/query",
    "/api/v1/closure/{hash}",
    "/pins",
    "/pin/{hash}.narinfo",
    "/api/v1/remove",
    "/api/v1/blocked",
    "/api/v1/blocked/{hash}",
)
REALISATION_ROUTES = ("/realisations/{id}", "/build-trace-v2/{drv}/{output}")
PEER_ROUTE = "/cluster/nar/{file}"
PROBES = ("/healthz", "/readyz", "/metrics")
NO_ROUTE = "other"
READS = ("GET", "HEAD")
METHODS = (*READS, "PUT", "DELETE", "POST")
OTHER_METHOD = "_OTHER"  # what OpenTelemetry calls every method that is not a known one

ERROR_KINDS = ("connect", "timeout", "status", "broken", "corrupt", "malformed")
LOCK_MODES = ("files", *BACKENDS)  # files: the local locks of several workers
SHORT_WAYS = ("request", "nar", "check", "file", "transaction")
DOWNLOAD_OUTCOMES = ("published", "relayed", "unkept", "failed", "cancelled")


LIMITS = tuple(setting.flag for setting in settings_of(Settings) if setting.counted)
"""The flags of the settings that are limits; the label values of `ncps_limit_reached_total`."""

_TRANSFER = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class ServingMetrics(Registered):
    """Narinfos and NARs that clients asked for, by result."""

    def _add_serving(self, upstreams: tuple[str, ...]) -> None:
        results, statuses = ("hit", "miss"), ("success", "error")
        self.nar_served = Labelled(
            self._counter(
                "ncps_nar_served_total",
                "NARs that clients asked for, by whether they were stored here and whether they "
                "were served.",
                "result status upstream_hostname",
            ),
            results,
            statuses,
            upstreams,
        )
        self.narinfo_served = Labelled(
            self._counter(
                "ncps_narinfo_served_total",
                "Narinfos that clients asked for, by whether they were known here and whether "
                "they were served.",
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
            (*ROUTES, *API_ROUTES, *REALISATION_ROUTES, PEER_ROUTE, *PROBES, NO_ROUTE),
        )
        self.short_answers = Labelled(
            self._counter(
                "ncps_short_answers_total",
                "Ready answers that the connection sent by itself, by route.",
                "route",
            ),
            ("/{hash}.narinfo", "/nar/{file}"),
        )


class UpstreamMetrics(Registered):
    """Requests to upstreams, and downloads."""

    def _add_upstreams(self, upstreams: tuple[str, ...]) -> None:
        self.narinfo_fetch_seconds = self._histogram(
            "ncps_upstream_narinfo_fetch_duration_seconds",
            "Time to fetch a narinfo from an upstream.",
        )
        self.nar_fetch_seconds = self._histogram(
            "ncps_upstream_nar_fetch_duration_seconds",
            "Time until the head of a NAR came from an upstream.",
        )
        # Both are gauges; the Go program calls the first one _total.
        self.upstream_count = self._gauge(
            "ncps_upstream_count_total", "Upstreams that are configured.", way="own"
        )
        self.upstream_count.set(len(upstreams))
        self.upstream_healthy = self._gauge(
            "ncps_upstream_count_healthy", "Upstreams that are considered healthy.", way="least"
        )
        self.upstream_left_out = Labelled(
            self._gauge(
                "ncps_upstream_left_out",
                "Whether an upstream is left out: it has been away for a while, or refuses ncps.",
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
                "Requests to upstreams that failed, by kind; an absence is not a failure.",
                "upstream_hostname kind",
            ),
            upstreams,
            ERROR_KINDS,
        )

    def _add_downloads(self) -> None:
        self.downloads = Labelled(
            self._counter(
                "ncps_downloads_total", "Downloads of NARs that ended, by outcome.", "outcome"
            ),
            DOWNLOAD_OUTCOMES,
        )
        self.short_ways = Labelled(
            self._counter(
                "ncps_short_ways_total",
                "Requests to upstreams, downloads and writes that took a short way, by kind.",
                "kind",
            ),
            SHORT_WAYS,
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
            "Store paths for which a second trusted narinfo had another NarHash.",
        )
        self.downloads_in_flight = self._gauge(
            "ncps_downloads_in_flight", "Downloads of NARs that are running."
        )
        self.spool_bytes = self._gauge(
            "ncps_spool_bytes",
            "Unpublished bytes of running downloads, held or reserved.",
        )


class LockMetrics(Registered):
    """Locks among processes."""

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
            "Whether the backend of locks can be reached.",
            way="least",
        )
        self.lock_backend_up.set(1)
        self.lock_server_up = Labelled(
            self._gauge(
                "ncps_lock_server_up",
                "Whether a Redis server that keeps locks can be reached.",
                way="least",
                labels="server",
            )
        )
        self.lock_degraded = self._gauge(
            "ncps_lock_degraded",
            "Whether this process uses local locks because the backend of locks is away.",
            way="most",
        )


class HttpMetrics(Registered):
    """Requests, connections, and their limits."""

    def _add_http(self) -> None:
        self.request_seconds = Labelled(
            self._histogram(
                "http_server_request_duration_seconds",
                "Time from the end of a request's head to the end of its response, as Twisted "
                "sees it.",
                "http_route http_request_method http_response_status_code",
                _TRANSFER,
            ),
        )
        for route, method in product((*ROUTES, *PROBES), READS):
            self.request_seconds(route, method, "200")
        for route, method in product((*ROUTES[-2:], NO_ROUTE), READS):
            self.request_seconds(route, method, "404")
        self.active_requests = self._gauge(
            "http_server_active_requests", "Requests that are being answered."
        )
        self.connections = self._gauge(
            "ncps_http_connections", "Connections of clients that are open."
        )
        self.most_connections = self._gauge(
            "ncps_worker_connections_most",
            "Connections of clients at the worker that has most of them.",
            way="most",
        )
        self.connections_refused = self._counter(
            "ncps_http_connections_refused_total",
            "Connections of clients that were closed immediately because too many were open.",
        )

    def _add_limits(self) -> None:
        self.limit_reached = Labelled(
            self._counter(
                "ncps_limit_reached_total",
                "Requests and objects refused, cut or not kept because of a limit, by its setting.",
                "limit",
            ),
            LIMITS,
        )


class Metrics(
    ServingMetrics,
    StoreMetrics,
    ExtraMetrics,
    UpstreamMetrics,
    PrefetchMetrics,
    RealisationMetrics,
    UploadMetrics,
    RecompressMetrics,
    LockMetrics,
    HttpMetrics,
    TlsMetrics,
    AuthMetrics,
    WorkerMetrics,
):
    """All metrics of one process.

    :param upstreams: names of the configured upstreams, for the series with an upstream as label;
        the empty name means an unknown one.
    """

    def __init__(self, upstreams: Iterable[str] = ()) -> None:
        super().__init__()
        names = tuple(upstreams)
        self._add_serving(("", *names))
        self._add_store()
        self._add_eviction()
        self._add_quarantine()
        self._add_pins()
        self._add_upstreams(names)
        self._add_downloads()
        self._add_prefetch()
        self._add_uploads()
        self._add_recompress()
        self._add_realisations()
        self._add_locks()
        self._add_http()
        self._add_tls()
        self._add_limits()
        self._add_extras()
        self._add_auth()
        self._add_workers()
        self.process = ProcessMetrics(self.registry)
