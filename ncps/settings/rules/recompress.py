"""The rule of the settings of recompression."""

from __future__ import annotations

from ncps.settings.draft import Draft

_TO = "cache.recompress.to"


def decide_recompress(draft: Draft) -> None:
    """Turn `auto` into `off` where a file in zstd may be removed to make room, or costs money (D4).

    Such a file can only be made again by the same version of zstd. In a bucket, each byte costs
    money besides, and replicas may have several versions.
    """
    values = draft.values
    is_kept = values.get("cache.max_size_bytes") == 0 and bool(values.get("cache.storage.local"))
    if values.get(_TO) == "auto" and not is_kept:
        values[_TO] = "off"
