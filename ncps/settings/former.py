"""Settings of the Go program that have no effect here, a line each."""

from __future__ import annotations

from typing import Final

from ncps.settings.kinds.values import BOOLEAN, OPTIONAL_PATH, TEXT, duration, integer
from ncps.settings.setting import Kind, Setting, Status, environment_of

_CHUNKS = "NARs are stored whole, not as chunks defined by their content."
_PROFILER = "It is for the profiler of the Go program."
_REPORTS = "ncps sends no reports to anybody."
_XZ = "Nothing here runs the xz program: a library decompresses."
_CDC = "It tunes content-defined chunking, which ncps does not have."
_REDIS = "ncps uses two connections to Redis for everything."
_RETRY = "A wait for a lock lasts as long as its request."
_STAGING = "Instances share running downloads directly (--cluster-advertise-url), without staging."

_N = integer()
_TIME = duration()

_IGNORED: Final[tuple[tuple[str, Kind, str | tuple[str, ...], str], ...]] = (
    ("cache.cdc.enabled", BOOLEAN, "false", _CHUNKS),
    ("pprof.addr", TEXT, "", _PROFILER),
    ("analytics.reporting.enabled", BOOLEAN, "false", _REPORTS),
    ("analytics.reporting.samples", BOOLEAN, "false", _REPORTS),
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
"""Key, kind, default, and why it has no effect. To ignore these settings is harmless."""


def _ignored(key: str, kind: Kind, default: str | tuple[str, ...], why: str) -> Setting:
    flag = key.replace(".", "-")
    return Setting(
        flag=flag,
        environment=environment_of(flag),
        key=key,
        kind=kind,
        default=default,
        repeatable=isinstance(default, tuple),
        status=Status.IGNORED,
        group="Accepted without effect",
        help=why,
    )


FORMER: Final = tuple(_ignored(*line) for line in _IGNORED)
"""All these settings, in the order of the documentation."""
