"""The one table of settings: flags, help, environment, files and documentation all read it.

`schema` declares the settings that have an effect; `former` lists those that have none.
"""

from __future__ import annotations

from typing import Final

from ncps.settings.declare import settings_of
from ncps.settings.former import FORMER
from ncps.settings.schema.tree import Settings
from ncps.settings.setting import Setting

_GROUPS: Final = (
    "General",
    "Telemetry",
    "Server",
    "Authentication",
    "Cache",
    "Database server",
    "Prefetch",
    "Size",
    "Recompression",
    "Uploads",
    "Storage in S3",
    "Upstreams",
    "Cluster",
    "Locks",
    "Redis",
)

TABLE: Final[tuple[Setting, ...]] = (
    *sorted(
        settings_of(Settings, group="General"), key=lambda setting: _GROUPS.index(setting.group)
    ),
    *FORMER,
)
"""All settings, in the order of the documentation."""


def by_flag() -> dict[str, Setting]:
    """Return every flag that a command line may hold: plain, with `-file`, and former."""
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
    """Return every key that a configuration file may hold: plain, with `-file`, and former."""
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
