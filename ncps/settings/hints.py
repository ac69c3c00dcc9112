"""Hints at the setting that an unknown name probably means."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Final

from ncps.settings.setting import Setting
from ncps.settings.table import TABLE

_LONGEST: Final = 100
_OURS: Final = ("CACHE_", "CLUSTER_", "LOG_", "NCPS_", "PROMETHEUS_", "SERVER_", "UPSTREAM_")
"""Prefixes of our variables; variables of other programs may have them, too."""
_OWN: Final = "NCPS_"
_CLOSE: Final = 0.87
_MOVED: Final[Mapping[str, str]] = {
    "server-listen": "it is called server-addr",
    "cache-storage-s3-use-ssl": "give the scheme in cache-storage-s3-endpoint, https:// or http://",
}
"""Flags of former programs and documents whose names do not resemble ours."""

PASSED_OVER: Final[Mapping[str, str]] = {"otel": "its table is called opentelemetry"}
"""Tables of a file that the Go program never read, although its documentation has them."""


def hint_for(name: str, known: Mapping[str, Setting], dashes: str = "") -> str:
    """Return a hint to append to an unknown flag: the flag that it probably means; empty if unsure.

    :param name: without dashes.
    :param known: all flags, without dashes.
    :param dashes: written in front of the flag in the hint.
    """
    if moved := _MOVED.get(name):
        return f": {moved}"
    close = difflib.get_close_matches(name[:_LONGEST], list(known), n=1)
    return f": did you mean {dashes}{known[close[0]].today(close[0])}?" if close else ""


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Describe unknown variables whose names are close to ours, without their values.

    They are not errors: other programs have variables that look like ours.
    """
    known = _known_variables()
    found = []
    for name, value in sorted(environ.items()):
        if value and name.startswith(_OURS) and name not in known:
            hint = _hint_for_variable(name[:_LONGEST], known)
            if hint:
                found.append(f"environment {name} is not a setting: {hint}")
    return found


def _known_variables() -> dict[str, str]:
    """Return each variable that ncps reads, with the documented variable that it stands for."""
    known: dict[str, str] = {}
    for setting in TABLE:
        of_old = (alias.environment for alias in setting.aliases)
        for name in (setting.environment, setting.other_environment, *of_old):
            known.setdefault(name, setting.environment)
        if setting.is_secret:
            of_file = setting.names.of_file().environment
            known[of_file] = of_file
    known.pop("", None)
    return known


def _hint_for_variable(name: str, known: Mapping[str, str]) -> str:
    flag = name.lower().replace("_", "-")
    if flag in _MOVED:
        return _MOVED[flag]
    if name.removesuffix("_FILE") in known:
        return f"only secrets are read from files, and {name.removesuffix('_FILE')} is not secret"
    if name.startswith(_OWN) and name.removeprefix(_OWN) in known:
        return f"did you mean {known[name.removeprefix(_OWN)]}?"
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=_CLOSE)
    return f"did you mean {known[close[0]]}?" if close else ""
