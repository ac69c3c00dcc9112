"""The reading of all settings.

A flag wins over the environment, the environment over the file, the file over the default (D1).
One error reports all problems together.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from attrs import Factory, define

from ncps.errors import Malformed
from ncps.settings.convert import convert, convert_default
from ncps.settings.declare import build
from ncps.settings.draft import Draft
from ncps.settings.files import read_file
from ncps.settings.hints import PASSED_OVER, hint_for, unknown_variables
from ncps.settings.problems import InvalidSettings
from ncps.settings.rules.decide import decide
from ncps.settings.schema.tree import Settings
from ncps.settings.setting import Setting, SettingNames, Status
from ncps.settings.showing import has_secret
from ncps.settings.sources import Environment, File, Flags, Given, SettingsSource
from ncps.settings.surroundings import Surroundings
from ncps.settings.table import TABLE, by_flag, known_keys

_SUFFIXES = (".yaml", ".yml", ".toml", ".json")


@define
class _Reading(Draft):
    """A draft while the sources are read; an earlier source wins over a later one."""

    sources: list[SettingsSource] = Factory(list)

    def find(self, setting: Setting) -> Given | None:
        """Look for the current names in every source, then for the former names."""
        found = None
        for source in self.sources:
            found = found or self._find_here(source, setting)
        for alias in [each for each in setting.aliases if not each.is_current]:
            for source in self.sources:
                found = self._find_other(source, setting, alias, "is deprecated", found)
        expected = SettingNames(environment=setting.other_environment)
        for source in self.sources:
            found = self._find_other(source, setting, expected, "is called otherwise", found)
        return found

    def _find_other(
        self,
        source: SettingsSource,
        setting: Setting,
        names: SettingNames,
        what: str,
        found: Given | None,
    ) -> Given | None:
        """Look for names that are not the current ones."""
        given = source.find(names)
        if given is None:
            return found
        lost = " and not used" if found else ""
        better = source.name_of(setting.names)
        self.warnings.append(f"{given.where} {what}{lost}: use {better}")
        return found or given

    def _find_here(self, source: SettingsSource, setting: Setting) -> Given | None:
        current = [setting.names, *(each for each in setting.aliases if each.is_current)]
        plain = next((given for names in current if (given := source.find(names))), None)
        if not setting.is_secret:
            return plain
        by_path = source.find(setting.names.of_file())
        if by_path is None:
            return plain
        if plain is not None:
            self.problems.append(f"{by_path.where}: give either this or the value itself")
        return Given(raw=by_path.raw, origin=by_path.origin, where=by_path.where, is_path=True)

    def default_of(self, setting: Setting) -> str | tuple[str, ...]:
        default = setting.default
        return default(self.surroundings) if callable(default) else default

    def resolve(self, setting: Setting) -> None:
        """Find the value of one setting, or add a problem or a warning."""
        given = self.find(setting)
        if setting.status is not Status.ACTIVE:
            if given is not None:
                self._without_effect(setting, given)
            return
        self.origins[setting.key] = given.origin if given else "default"
        if given is None:
            value = convert_default(setting, self.default_of(setting))
        else:
            try:
                value = convert(setting, given)
            except ValueError as error:
                self.problems.append(f"{given.where}: {error}")
                return
            if not given.is_path and given.where == Flags.where_of(setting.names):
                self._warn_of_secret(setting, value)
        self.values[setting.attribute] = value

    def _warn_of_secret(self, setting: Setting, value: object) -> None:
        """Warn of a secret in the command line, which all users of the machine can read."""
        if setting.is_secret and has_secret(value):
            names = setting.names
            self.warnings.append(
                f"flag --{names.flag}: all users of this machine can read the command line: give"
                f" this secret with --{names.of_file().flag} or in the variable {names.environment}"
            )

    def _without_effect(self, setting: Setting, given: Given) -> None:
        default = self.default_of(setting)
        is_unsupported = setting.status is Status.UNSUPPORTED
        if is_unsupported and given.is_path:
            value: object = None
        elif given.raw in ("", ("",)):
            return
        else:
            try:
                value = convert(setting, given)
            except ValueError as error:
                if not is_unsupported:
                    self.problems.append(f"{given.where}: {error}")
                    return
                value = None
        if default != "" and value == convert_default(setting, default):
            return
        if is_unsupported:
            harmless = f" or set it to {default}" if isinstance(default, str) and default else ""
            self.problems.append(
                f"{given.where}: not supported by this version of ncps: leave it out{harmless}"
            )
        else:
            self.warnings.append(f"{given.where} has no effect: {setting.help}")

    def open_file(self, setting: Setting) -> None:
        """Find the configuration file and add it to the sources."""
        given = self.find(setting)
        path: Path | None = None
        if given is not None:
            try:
                path = Path(str(convert(setting, given)))
            except ValueError as error:
                self.problems.append(f"{given.where}: {error}")
        else:
            names = (self.surroundings.config_dir / f"config{suffix}" for suffix in _SUFFIXES)
            path = next(filter(_exists, names), None)
        self.values[setting.attribute] = path
        if path is None:
            return
        try:
            values = read_file(path)
        except OSError as error:
            self.problems.append(f"file {path}: cannot be read: {error.strerror}")
        except Malformed as error:
            self.problems.append(f"file {path}: {error}")
        else:
            for table, why in PASSED_OVER.items():
                given_keys = [key for key in values if key.partition(".")[0] == table]
                if given_keys:
                    self.warnings.append(f"file {path}: key {table} has no effect: {why}")
                    values = {key: values[key] for key in values if key not in given_keys}
            self.sources.append(File(path, values))
            self.problems.extend(f"file {path}: {problem}" for problem in unknown_keys(values))


def _exists(path: Path) -> bool:
    """Whether a file exists; False if this process may not look."""
    try:
        return path.exists()
    except OSError:
        return False


def unknown_keys(values: Mapping[str, object]) -> list[str]:
    """Describe the unknown keys of a file, each unknown table once."""
    known = known_keys()
    tables = {key[:i] for key in known for i, letter in enumerate(key) if letter == "."}
    found: dict[str, str] = {}
    for key in values:
        if key in known:
            continue
        above = [key[:i] for i, letter in enumerate(key) if letter == "."]
        if leaf := next((name for name in above if name in known and name not in tables), ""):
            setting = known[leaf]
            found[leaf] = f"key {leaf}: should be {setting.kind.expected}, not a table"
            continue
        unknown = next((name for name in (*above, key) if name not in tables), key)
        if unknown in tables:
            found[unknown] = f"key {unknown}: should be a table of settings"
            continue
        candidates = sorted({*known, *tables})
        if moved := hint_for(key.replace(".", "-"), {}):
            found[key] = f"unknown key {key}{moved}"
            continue
        close = difflib.get_close_matches(key[:100], known, n=1, cutoff=0.8)
        close = close or difflib.get_close_matches(unknown[:100], candidates, n=1)
        shown = key[:100] if key in close or (close and close[0] in known) else unknown[:100]
        shown = shown if shown.isprintable() else ascii(shown)
        meant = [known[name].today(name) if name in known else name for name in close]
        hint = f": did you mean {meant[0]}?" if meant else ""
        found[shown] = f"unknown key {shown}{hint}"
    return list(found.values())


def _unknown_flags(flags: Mapping[str, Sequence[str]]) -> list[str]:
    known = by_flag()
    return [
        f"unknown flag --{flag[:100]}{hint_for(flag, known, '--')}"
        for flag in flags
        if flag not in known
    ]


def load(
    flags: Mapping[str, Sequence[str]] | None = None,
    *,
    surroundings: Surroundings | None = None,
) -> Settings:
    """Read flags, environment, file and defaults.

    Raises InvalidSettings if anything is wrong; the error names all problems.

    :param flags: for each flag, without dashes, the texts it was given, in order.
    """
    flags = flags or {}
    surroundings = surroundings or Surroundings.of_process()
    reading = _Reading(
        surroundings=surroundings, sources=[Flags(flags), Environment(surroundings.environ)]
    )
    reading.problems.extend(_unknown_flags(flags))
    for setting in TABLE:
        if setting.flag == "config":
            reading.open_file(setting)
    for setting in TABLE:
        if setting.flag != "config":
            reading.resolve(setting)
    reading.warnings.extend(unknown_variables(surroundings.environ))
    decide(reading)
    warnings = tuple(dict.fromkeys(reading.warnings))
    if reading.problems:
        raise InvalidSettings(reading.problems, warnings)
    told = {
        "warnings": warnings,
        "origins": MappingProxyType(reading.origins),
        "given": MappingProxyType({flag: tuple(texts) for flag, texts in flags.items()}),
    }
    return build(Settings, {**reading.values, **told})
