"""The settings as text: their present values, and the documentation of all of them."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter

from ncps.settings.schema.tree import Settings
from ncps.settings.setting import Setting, Status
from ncps.settings.table import TABLE

_INTRODUCTION = """\
# Settings

<!-- Made by `python -m ncps.settings`; a test fails when it is out of date. -->

Every setting can be given as a flag (`--cache-hostname=cache.example.org`), as an environment
variable, or in one configuration file in YAML, TOML or JSON, where a key with dots is a path of
nested tables.
A flag wins over the environment, the environment over the file, the file over the default.
`ncps settings` prints the value of each setting and where it came from.

- `--config` or `NCPS_CONFIG_FILE` names the file. Without them it is `ncps/config.yaml` (or `.yml`,
  `.toml`, `.json`) in the user's configuration directory. An unknown key is an error.
- An empty environment variable counts as not set.
- Lists are arrays in a file, separated by commas in a variable, and repeated flags. Rules hold
  commas themselves: in a variable, each stands on a line of its own.
- Durations are written as in Go: `300ms`, `5s`, `10m`, `1h30m`. Sizes are a number and one of the
  letters B, K, M, G and T, in powers of 1024. `10GiB` is the same as `10G`; `10GB` is in powers of
  1000. Booleans are `true`, `false`, `1` or `0`.
- A setting marked *secret* can also be given as the name of a file that holds the value: the flag
  and the key with `-file` after the name, the variable with `_FILE`.
- A setting marked *reload* takes a new value from the file at SIGHUP (`systemctl reload ncps`). All
  others need a restart.
- Former names still work, with a warning; the present name wins. A variable whose name is close to
  one of these causes a warning, too.
"""
_NOTES = {
    Status.UNSUPPORTED: "Any value but the default is an error at the start.",
    Status.IGNORED: "Any value but the default causes one warning and has no effect.",
}


def groups() -> dict[str, list[Setting]]:
    """Return the settings by group, in order."""
    found: dict[str, list[Setting]] = {}
    for setting in TABLE:
        found.setdefault(setting.group, []).append(setting)
    return found


def shown_value(setting: Setting, value: object) -> str:
    """Write a value for people; a secret is `***`."""
    if isinstance(value, tuple):
        return ", ".join(shown_value(setting, item) for item in value)
    if value is None:
        return ""
    if setting.kind.show is not None:
        return setting.kind.show(value)
    return "***" if setting.is_secret and value else str(value)


def effective(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """Yield the key, the value and the source of the value for each setting that has an effect."""
    for setting in TABLE:
        if setting.status is Status.ACTIVE and setting.key:
            value = attrgetter(setting.attribute)(settings)
            yield setting.key, shown_value(setting, value), settings.origin(setting.key)


def as_json(settings: Settings) -> dict[str, object]:
    """Return the configuration file, and each setting by its key: value, origin, flag, variable.

    A value that was not set is null, and a secret is `***`. Lists are lists; all else is text.
    """
    found: dict[str, object] = {}
    for setting in TABLE:
        if setting.status is Status.ACTIVE and setting.key:
            value = attrgetter(setting.attribute)(settings)
            found[setting.key] = {
                "value": _json_value(setting, value),
                "origin": settings.origin(setting.key),
                "flag": f"--{setting.flag}",
                "variable": setting.environment,
            }
    file = settings.config_file
    return {"configuration-file": None if file is None else str(file), "settings": found}


def _json_value(setting: Setting, value: object) -> object:
    if isinstance(value, tuple):
        return [_json_value(setting, item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    return shown_value(setting, value)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _row(setting: Setting) -> str:
    default = setting.default_text
    meaning = setting.help + (" *Secret.*" if setting.is_secret else "")
    meaning += " *Reload.*" if setting.reloads else ""
    current = [alias for alias in setting.aliases if alias.is_current]
    old = [
        f"`--{alias.flag}`" if alias.flag else f"`{alias.key}`"
        for alias in setting.aliases
        if not alias.is_current
    ]
    if old:
        meaning += f" Former name{'s' if len(old) > 1 else ''}: {', '.join(old)}."
    cells = (
        f"`--{setting.flag}`" + (" (list)" if setting.repeatable else ""),
        _code(setting.environment),
        " or ".join([_code(setting.key), *(_code(alias.key) for alias in current)]),
        default if setting.default_note else _code(default),
        meaning,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def markdown() -> str:
    """Return the documentation of every setting."""
    lines = [_INTRODUCTION]
    for group, members in groups().items():
        lines.append(f"## {group}\n")
        if note := _NOTES.get(members[0].status):
            lines.append(f"{note}\n")
        lines.append("| Flag | Variable | Key | Default | Meaning |")
        lines.append("|---|---|---|---|---|")
        lines.extend(_row(setting) for setting in members)
        lines.append("")
    return "\n".join(lines)
