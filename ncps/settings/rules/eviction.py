"""The rule of the settings of eviction."""

from __future__ import annotations

from ncps.settings.draft import Draft


def decide_eviction(draft: Draft) -> None:
    """Check that a schedule comes with a maximum size."""
    values = draft.values
    if values.get("cache.lru.schedule") and values.get("cache.max_size_bytes") == 0:
        draft.problems.append(
            "cache-lru-schedule needs cache-max-size, the size above which old NARs are removed"
        )
