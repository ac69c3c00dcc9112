"""The differences between the settings that hold and those that were read again."""

from __future__ import annotations

from operator import attrgetter

from attrs import evolve, frozen

from ncps.settings.declare import replaced
from ncps.settings.report import shown_value
from ncps.settings.schema.tree import Settings
from ncps.settings.setting import Setting, Status
from ncps.settings.table import TABLE


@frozen(kw_only=True)
class Changes:
    """The differences between old and new settings, and their effects.

    :ivar settings: the settings that hold from now on.
    :ivar taken: one line for each change that a running process applies.
    :ivar left: one line for each change that needs a restart.
    """

    settings: Settings
    taken: tuple[str, ...]
    left: tuple[str, ...]


def changes(old: Settings, new: Settings) -> Changes:
    """Compare old and new settings; no line shows a secret."""
    values: dict[str, object] = {}
    taken: list[str] = []
    left: list[str] = []
    for setting in TABLE:
        if setting.status is not Status.ACTIVE or not setting.key:
            continue
        before, now = (attrgetter(setting.attribute)(settings) for settings in (old, new))
        if before == now:
            continue
        line = f"{setting.key}: {_difference(setting, before, now)}"
        if setting.reloads:
            values[setting.attribute] = now
            taken.append(line)
        else:
            left.append(line)
    settings = evolve(replaced(old, values), warnings=new.warnings, origins=new.origins)
    return Changes(settings=settings, taken=tuple(taken), left=tuple(left))


def _difference(setting: Setting, before: object, now: object) -> str:
    shown = [shown_value(setting, value) or "nothing" for value in (before, now)]
    if shown[0] == shown[1]:
        return f"another value, of which only {shown[0]} is shown"
    return f"{shown[1]} instead of {shown[0]}"
