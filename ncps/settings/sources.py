"""The sources of values: flags, environment variables and one configuration file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from attrs import field, frozen

from ncps.settings.setting import SettingNames


@frozen(kw_only=True)
class Given:
    """A value as its source gives it, not yet parsed.

    :param raw: text; a tuple of texts from a flag, which may be repeated; from a file, a value of
        its syntax.
    :param origin: the flag, variable or file; for people, who may want to change the value.
    :param where: the origin for error messages, with the key in a file.
    :param is_path: whether `raw` is the path of a file that holds the value.
    """

    raw: object = field(repr=False)
    origin: str
    where: str
    is_path: bool = False


class SettingsSource(Protocol):
    """One place to look for values."""

    def find(self, names: SettingNames) -> Given | None:
        """Return the value; None if this source does not give it."""

    def name_of(self, names: SettingNames) -> str:
        """Return the name that a setting has in this source, as people write it; empty for none."""


@frozen
class Flags:
    """The command line: for each flag its texts in order."""

    values: Mapping[str, Sequence[str]] = field(repr=False)

    @staticmethod
    def where_of(names: SettingNames) -> str:
        """Name the flag as messages do."""
        return f"flag --{names.flag}"

    def find(self, names: SettingNames) -> Given | None:
        """Look for the flag."""
        texts = self.values.get(names.flag) if names.flag else None
        if not texts:
            return None
        where = self.where_of(names)
        return Given(raw=tuple(texts), origin=where, where=where)

    def name_of(self, names: SettingNames) -> str:
        """Return the flag with its dashes."""
        return f"--{names.flag}" if names.flag else ""


@frozen
class Environment:
    """Environment variables. An empty one counts as not set: unit files and charts rely on that."""

    variables: Mapping[str, str] = field(repr=False)

    def find(self, names: SettingNames) -> Given | None:
        """Look for the variable."""
        text = self.variables.get(names.environment, "") if names.environment else ""
        if not text:
            return None
        where = f"environment {names.environment}"
        return Given(raw=text, origin=where, where=where)

    def name_of(self, names: SettingNames) -> str:
        """Return the variable."""
        return names.environment


@frozen
class File:
    """A configuration file, flat, by dotted key."""

    path: Path
    values: Mapping[str, object] = field(repr=False)

    def find(self, names: SettingNames) -> Given | None:
        """Look for the key."""
        if not names.key or names.key not in self.values:
            return None
        origin = f"file {self.path}"
        return Given(raw=self.values[names.key], origin=origin, where=f"{origin}: key {names.key}")

    def name_of(self, names: SettingNames) -> str:
        """Return the key."""
        return names.key
