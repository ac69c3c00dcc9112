"""Settings whose silent absence would be unsafe; they wait for their feature."""

from __future__ import annotations

from ncps.settings.setting import Setting, Status
from ncps.settings.values import TEXT

GROUP = "Not supported by this version"

ROWS = (
    Setting(
        flag="cache-get-token",
        key="cache.get-token",
        kind=TEXT,
        default="",
        is_secret=True,
        status=Status.UNSUPPORTED,
        group=GROUP,
        help="Token that readers must present.",
    ),
)
