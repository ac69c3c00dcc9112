"""Settings whose silent absence would surprise or be unsafe; they wait for their feature."""

from __future__ import annotations

from ncps.settings.setting import Kind, Setting, Status
from ncps.settings.values import BOOLEAN, PUBLIC_KEY, TEXT

GROUP = "Not supported by this version"


def _row(
    flag: str,
    key: str,
    kind: Kind,
    default: str | tuple[str, ...],
    help_: str,
    *,
    environment: str = "",
    is_secret: bool = False,
) -> Setting:
    return Setting(
        flag=flag,
        key=key,
        environment=environment or flag.upper().replace("-", "_"),
        kind=kind,
        default=default,
        repeatable=isinstance(default, tuple),
        is_secret=is_secret,
        status=Status.UNSUPPORTED,
        group=GROUP,
        help=help_,
    )


ROWS = (
    _row(
        "cache-allow-put-verb",
        "cache.allow-put-verb",
        BOOLEAN,
        "false",
        "Accept uploads.",
    ),
    _row(
        "cache-allow-delete-verb",
        "cache.allow-delete-verb",
        BOOLEAN,
        "false",
        "Accept deletions.",
    ),
    _row(
        "cache-get-token",
        "cache.get-token",
        TEXT,
        "",
        "Token that readers must present.",
        is_secret=True,
    ),
    _row(
        "cache-require-trusted-signature",
        "cache.require-trusted-signature",
        BOOLEAN,
        "false",
        "Accept only uploads that bear a trusted signature.",
    ),
    _row(
        "cache-trusted-upload-key",
        "cache.trusted-upload-keys",
        PUBLIC_KEY,
        (),
        "Public keys that uploads may be signed with.",
        environment="CACHE_TRUSTED_UPLOAD_KEYS",
    ),
    _row(
        "cache-cdc-enabled",
        "cache.cdc.enabled",
        BOOLEAN,
        "false",
        "Store NARs as content-defined chunks.",
    ),
    _row("pprof-addr", "pprof.addr", TEXT, "", "Address of the profiler of the Go program."),
)
