"""Settings of the Go program that cannot hurt by having no effect."""

from __future__ import annotations

from ncps.settings.setting import Kind, Setting, Status
from ncps.settings.values import BOOLEAN, OPTIONAL_PATH, PUBLIC_KEY, TEXT, duration, integer

GROUP = "Accepted without effect"


def _row(
    flag: str,
    key: str,
    kind: Kind,
    default: str | tuple[str, ...],
    help_: str,
    *,
    environment: str = "",
) -> Setting:
    return Setting(
        flag=flag,
        key=key,
        environment=environment or flag.upper().replace("-", "_"),
        kind=kind,
        default=default,
        repeatable=isinstance(default, tuple),
        status=Status.IGNORED,
        group=GROUP,
        help=help_,
    )


_UPLOADS = "There are no uploads yet: every PUT is refused."
_CDC = "Tuning of content-defined chunking, which is off."
_STAGING = (
    "Running downloads are shared between instances directly (--cluster-advertise-url), without "
    "staging."
)
_XZ = "Nothing here runs the xz program: a library decompresses."
_OTEL = "There is no OpenTelemetry yet."

ROWS = (
    _row("cache-allow-put-verb", "cache.allow-put-verb", BOOLEAN, "false", _UPLOADS),
    _row(
        "cache-allow-delete-verb",
        "cache.allow-delete-verb",
        BOOLEAN,
        "false",
        "There are no deletions by clients yet: every DELETE is refused.",
    ),
    _row(
        "cache-require-trusted-signature",
        "cache.require-trusted-signature",
        BOOLEAN,
        "false",
        _UPLOADS,
    ),
    _row(
        "cache-trusted-upload-key",
        "cache.trusted-upload-keys",
        PUBLIC_KEY,
        (),
        _UPLOADS,
        environment="CACHE_TRUSTED_UPLOAD_KEYS",
    ),
    _row(
        "cache-cdc-enabled",
        "cache.cdc.enabled",
        BOOLEAN,
        "false",
        "NARs are stored whole, not as chunks defined by their content.",
    ),
    _row("pprof-addr", "pprof.addr", TEXT, "", "It is for the profiler of the Go program."),
    _row(
        "analytics-reporting-enabled",
        "analytics.reporting.enabled",
        BOOLEAN,
        "false",
        "Nothing is ever reported to anybody.",
    ),
    _row(
        "analytics-reporting-samples",
        "analytics.reporting.samples",
        BOOLEAN,
        "false",
        "Nothing is ever reported to anybody.",
    ),
    _row("otel-enabled", "opentelemetry.enabled", BOOLEAN, "false", _OTEL),
    _row("otel-grpc-url", "opentelemetry.grpc-url", TEXT, "", _OTEL),
    _row("xz-binary-path", "xz-binary-path", OPTIONAL_PATH, "", _XZ),
    _row("use-xz-binary", "use-xz-binary", BOOLEAN, "false", _XZ),
    _row("cache-cdc-min", "cache.cdc.min", integer(), "16384", _CDC),
    _row("cache-cdc-avg", "cache.cdc.avg", integer(), "65536", _CDC),
    _row("cache-cdc-max", "cache.cdc.max", integer(), "262144", _CDC),
    _row(
        "cache-cdc-lazy-chunking-enabled", "cache.cdc.lazy-chunking-enabled", BOOLEAN, "false", _CDC
    ),
    _row("cache-cdc-background-workers", "cache.cdc.background-workers", integer(), "", _CDC),
    _row("cache-cdc-delete-delay", "cache.cdc.delete-delay", duration(), "24h", _CDC),
    _row(
        "cache-cdc-lazy-recovery-schedule",
        "cache.cdc.lazy-recovery-schedule",
        TEXT,
        "@every 5m",
        _CDC,
    ),
    _row(
        "cache-cdc-lazy-recovery-batch-size",
        "cache.cdc.lazy-recovery-batch-size",
        integer(),
        "100",
        _CDC,
    ),
    _row(
        "cache-cdc-lazy-cleanup-schedule",
        "cache.cdc.lazy-cleanup-schedule",
        TEXT,
        "@every 1h",
        _CDC,
    ),
    _row("cache-cdc-chunk-wait-timeout", "cache.cdc.chunk-wait-timeout", duration(), "30s", _CDC),
    _row(
        "cache-redis-pool-size",
        "cache.redis.pool-size",
        integer(),
        "10",
        "Two connections to Redis carry everything.",
    ),
    _row(
        "cache-lock-retry-max-attempts",
        "cache.lock.retry.max-attempts",
        integer(),
        "3",
        "Who waits for a lock waits as long as whoever asked does.",
    ),
    _row(
        "cache-inflight-staging-enabled",
        "cache.inflight-staging.enabled",
        BOOLEAN,
        "false",
        _STAGING,
    ),
    _row(
        "cache-inflight-staging-retention",
        "cache.inflight-staging.retention",
        duration(),
        "5m",
        _STAGING,
    ),
    _row(
        "cache-inflight-staging-part-size",
        "cache.inflight-staging.part-size",
        integer(),
        "8388608",
        _STAGING,
    ),
    _row(
        "cache-fsck-dechunk-residue-grace",
        "cache.fsck.dechunk-residue-grace",
        duration(),
        "24h",
        _CDC,
    ),
)
