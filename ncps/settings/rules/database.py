"""The rules of the database settings, applied once all settings are read."""

from __future__ import annotations

from typing import Final

from ncps.settings.draft import Draft
from ncps.settings.kinds.database_url import DatabaseURL

_TIMEOUT: Final = "cache.database.connect-timeout"
_SHORTEST_S: Final = 1.0


def decide_database(draft: Draft) -> None:
    """Take the connect timeout from the URL if no setting gives it; warn of ignored parameters."""
    url = draft.values.get("cache.database_url")
    if not isinstance(url, DatabaseURL):
        return
    draft.warnings.extend(f"cache-database-url: {note}" for note in url.notes)
    if url.connect_timeout_s is None:
        return
    if not draft.is_given(_TIMEOUT):
        draft.values["cache.database.connect_timeout_s"] = max(_SHORTEST_S, url.connect_timeout_s)
    else:
        draft.warnings.append(
            "cache-database-url: its connect timeout has no effect:"
            " cache-database-connect-timeout is given, too"
        )
