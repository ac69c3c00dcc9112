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
    :param origin: for people, who want to know where to change it.
    :param where: for error messages; says the key as well.
    :param is_path: the value stands in a file of this name.
    """

    raw: object = field(repr=False)
    origin: str
    where: str
    is_path: bool = False


class SettingsSource(Protocol):
    """One place to look for values."""

    def find(self, names: SettingNames) -> Given | None:
        """Return the value under the name that counts here."""

    def name_of(self, names: SettingNames) -> str:
        """Return the name that counts here, as people write it; empty if there is none."""


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
    """Environment variables; an empty one counts as not set, as unit files and charts use it."""

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
