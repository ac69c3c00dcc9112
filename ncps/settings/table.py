"""The one table of settings: flags, help, environment, files and documentation all read it.

A feature that arrives moves its rows from `rows.later` or `rows.ignored` to where they belong and
adds fields to `model`; a test compares the two.
"""

from __future__ import annotations

from ncps.settings.rows import (
    cache,
    cluster,
    database,
    eviction,
    general,
    ignored,
    later,
    locks,
    s3,
    upstream,
    workers,
)
from ncps.settings.setting import Setting

TABLE: tuple[Setting, ...] = (
    *general.ROWS,
    *workers.ROWS,
    *cache.ROWS,
    *database.ROWS,
    *eviction.ROWS,
    *s3.ROWS,
    *upstream.ROWS,
    *cluster.ROWS,
    *locks.ROWS,
    *later.ROWS,
    *ignored.ROWS,
)


def by_flag() -> dict[str, Setting]:
    """Return every flag a command line may hold: plain, with `-file`, and of old."""
    found: dict[str, Setting] = {}
    for setting in TABLE:
        found[setting.flag] = setting
        if setting.is_secret:
            found[f"{setting.flag}-file"] = setting
        for alias in setting.aliases:
            if alias.flag:
                found[alias.flag] = setting
    return found


def known_keys() -> dict[str, Setting]:
    """Return every key a configuration file may hold, likewise."""
    found: dict[str, Setting] = {}
    for setting in TABLE:
        if setting.key:
            found[setting.key] = setting
            if setting.is_secret:
                found[f"{setting.key}-file"] = setting
        for alias in setting.aliases:
            if alias.key:
                found[alias.key] = setting
    return found
