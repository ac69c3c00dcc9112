"""What is decided about the database once all settings are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ncps.settings.database_url import DatabaseURL

_TIMEOUT: Final = "cache.database.connect-timeout"
_SHORTEST_S: Final = 1.0


def decide_database(
    values: dict[str, object], origins: Mapping[str, str], warnings: list[str]
) -> None:
    """Take the time to connect from the URL where no setting says it, and tell what is in vain.

    :param values: by attribute; changed in place. What could not be parsed is missing.
    :param origins: by key, where each value came from.
    """
    url = values.get("cache.database_url")
    if not isinstance(url, DatabaseURL):
        return
    warnings.extend(f"cache-database-url: {note}" for note in url.notes)
    if url.connect_timeout_s is None:
        return
    if origins.get(_TIMEOUT, "default") == "default":
        values["cache.database.connect_timeout_s"] = max(_SHORTEST_S, url.connect_timeout_s)
    else:
        warnings.append(
            "cache-database-url: its time to connect has no effect:"
            " cache-database-connect-timeout says it"
        )
