"""Settings of the Go program that have no effect here, a line each."""

from __future__ import annotations

from typing import Final

from ncps.settings.setting import Kind, Setting, Status, environment_of
from ncps.settings.values import BOOLEAN, OPTIONAL_PATH, PUBLIC_KEY, TEXT, duration, integer

_UPLOADS = "There are no uploads yet: every PUT is refused."
_DELETES = "There are no deletions by clients yet: every DELETE is refused."
_CHUNKS = "NARs are stored whole, not as chunks defined by their content."
_PROFILER = "It is for the profiler of the Go program."
_REPORTS = "Nothing is ever reported to anybody."
_OTEL = "There is no OpenTelemetry yet."
_XZ = "Nothing here runs the xz program: a library decompresses."
_CDC = "Tuning of content-defined chunking, which is off."
_REDIS = "Two connections to Redis carry everything."
_RETRY = "What waits for a lock waits as long as its request does."
_STAGING = (
    "Running downloads are shared between instances directly (--cluster-advertise-url), without "
    "staging."
)

_FLAGS: Final = {
    "cache.trusted-upload-keys": "cache-trusted-upload-key",
    "opentelemetry.enabled": "otel-enabled",
    "opentelemetry.grpc-url": "otel-grpc-url",
}
"""Flags that are not the key with dashes."""

_VARIABLES: Final = {"cache.trusted-upload-keys": "CACHE_TRUSTED_UPLOAD_KEYS"}
"""Variables that are not the flag in capitals."""

_N = integer()
_TIME = duration()

_IGNORED: Final[tuple[tuple[str, Kind, str | tuple[str, ...], str], ...]] = (
    ("cache.allow-put-verb", BOOLEAN, "false", _UPLOADS),
    ("cache.allow-delete-verb", BOOLEAN, "false", _DELETES),
    ("cache.require-trusted-signature", BOOLEAN, "false", _UPLOADS),
    ("cache.trusted-upload-keys", PUBLIC_KEY, (), _UPLOADS),
    ("cache.cdc.enabled", BOOLEAN, "false", _CHUNKS),
    ("pprof.addr", TEXT, "", _PROFILER),
    ("analytics.reporting.enabled", BOOLEAN, "false", _REPORTS),
    ("analytics.reporting.samples", BOOLEAN, "false", _REPORTS),
    ("opentelemetry.enabled", BOOLEAN, "false", _OTEL),
    ("opentelemetry.grpc-url", TEXT, "", _OTEL),
    ("xz-binary-path", OPTIONAL_PATH, "", _XZ),
    ("use-xz-binary", BOOLEAN, "false", _XZ),
    ("cache.cdc.min", _N, "16384", _CDC),
    ("cache.cdc.avg", _N, "65536", _CDC),
    ("cache.cdc.max", _N, "262144", _CDC),
    ("cache.cdc.lazy-chunking-enabled", BOOLEAN, "false", _CDC),
    ("cache.cdc.background-workers", _N, "", _CDC),
    ("cache.cdc.delete-delay", _TIME, "24h", _CDC),
    ("cache.cdc.lazy-recovery-schedule", TEXT, "@every 5m", _CDC),
    ("cache.cdc.lazy-recovery-batch-size", _N, "100", _CDC),
    ("cache.cdc.lazy-cleanup-schedule", TEXT, "@every 1h", _CDC),
    ("cache.cdc.chunk-wait-timeout", _TIME, "30s", _CDC),
    ("cache.redis.pool-size", _N, "10", _REDIS),
    ("cache.lock.retry.max-attempts", _N, "3", _RETRY),
    ("cache.inflight-staging.enabled", BOOLEAN, "false", _STAGING),
    ("cache.inflight-staging.retention", _TIME, "5m", _STAGING),
    ("cache.inflight-staging.part-size", _N, "8388608", _STAGING),
    ("cache.fsck.dechunk-residue-grace", _TIME, "24h", _CDC),
)
"""Key, kind, default, and why it has no effect: these cannot hurt by having none."""


def _ignored(key: str, kind: Kind, default: str | tuple[str, ...], why: str) -> Setting:
    flag = _FLAGS.get(key, key.replace(".", "-"))
    return Setting(
        flag=flag,
        environment=_VARIABLES.get(key, environment_of(flag)),
        key=key,
        kind=kind,
        default=default,
        repeatable=isinstance(default, tuple),
        status=Status.IGNORED,
        group="Accepted without effect",
        help=why,
    )


_GET_TOKEN: Final = Setting(
    flag="cache-get-token",
    environment="CACHE_GET_TOKEN",
    key="cache.get-token",
    kind=TEXT,
    default="",
    is_secret=True,
    status=Status.UNSUPPORTED,
    group="Not supported by this version",
    help="Token that readers must present.",
)
"""To pass it over in silence would be unsafe: readers would go unchecked."""

FORMER: Final = (_GET_TOKEN, *(_ignored(*line) for line in _IGNORED))
"""All of them, in the order of the documentation."""
