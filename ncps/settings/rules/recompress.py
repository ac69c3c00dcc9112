"""The rule of the settings of recompression."""

from __future__ import annotations

from ncps.settings.draft import Draft

_TO = "cache.recompress.to"


def decide_recompress(draft: Draft) -> None:
    """Choose for `auto`: zstd where no file in zstd is ever removed to make room (D4).

    Such a file can only be made again by the same version of zstd. In a bucket, each byte costs
    money besides, and replicas may have several versions.
    """
    values = draft.values
    if values.get(_TO) == "auto":
        is_kept = values.get("cache.max_size_bytes") == 0 and bool(
            values.get("cache.storage.local")
        )
        values[_TO] = "zstd" if is_kept else "off"
