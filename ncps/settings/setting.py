"""The rows of the table of settings."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping

from attrs import frozen

from ncps.settings.showing import quote
from ncps.settings.surroundings import Surroundings

Default = str | tuple[str, ...] | Callable[[Surroundings], str]


class Status(enum.Enum):
    """The effect of a setting that somebody gives."""

    ACTIVE = "active"
    #: Read, checked for its form, and of no effect; anything but the default earns one warning.
    IGNORED = "ignored"
    #: Anything but the default is an error: doing without would surprise or be unsafe.
    UNSUPPORTED = "unsupported"


@frozen(kw_only=True)
class Kind:
    """How the text of a value is read and written.

    :param expected: completes "should be ..." in messages.
    :param parse: raises ValueError; its message says what is wrong and never repeats the text.
    :param natives: types other than text that a configuration file may use.
    :param show: a value as text that `parse` would read again, without its secrets;
        None to use `str`, or to show nothing of a secret.
    :param from_table: reads the long form of a list's element in a file; raises ValueError.
    :param suffix: the unit, added to the attribute's name.
    :param quote: the part of a refused text that a message may show; empty for nothing.
    :param separator: stands between the elements of a list in flags and variables.
    """

    metavar: str
    expected: str
    parse: Callable[[str], object]
    natives: tuple[type, ...] = ()
    show: Callable[[object], str] | None = None
    from_table: Callable[[Mapping[str, object]], object] | None = None
    suffix: str = ""
    quote: Callable[[str], str] = quote
    separator: str = ","


@frozen(kw_only=True)
class SettingNames:
    """The names of a setting in the places that it may come from; empty where it may not.

    :param flag: without the dashes in front.
    :param key: dotted path in a configuration file.
    """

    flag: str = ""
    environment: str = ""
    key: str = ""

    def of_file(self) -> SettingNames:
        """Return the names under which a file that holds the value is given."""
        return SettingNames(
            flag=f"{self.flag}-file",
            environment=f"{self.environment}_FILE",
            key=f"{self.key}-file",
        )


def environment_of(flag: str) -> str:
    """Return the variable that a flag makes one expect."""
    return flag.upper().replace("-", "_")


@frozen(kw_only=True)
class Setting:
    """One setting, under all its names.

    :param default: as text, in the syntax a user would write; or made from the surroundings.
    :param default_note: describes a default that is not a constant.
    :param help: one paragraph for people.
    :param repeatable: a list; in flags and variables the kind's separator, which is a comma for
        most, stands between its elements.
    :param is_secret: the value is never shown, and may be given as the name of a file instead
        (`--FLAG-file`, `VARIABLE_FILE`, `key-file`).
    :param attribute: dotted path in the `Settings` tree; empty for what has no effect.
    :param shared: a limit for all workers together: each gets its part.
    :param counted: a limit whose effects are counted by its name.
    :param reloads: whether a running process takes a new value at SIGHUP.
    :param aliases: names of old: still read, with a warning, and weaker than today's.
    """

    flag: str
    key: str
    kind: Kind
    default: Default
    help: str
    group: str
    environment: str
    attribute: str = ""
    default_note: str = ""
    repeatable: bool = False
    is_secret: bool = False
    shared: bool = False
    counted: bool = False
    reloads: bool = False
    status: Status = Status.ACTIVE
    aliases: tuple[SettingNames, ...] = ()

    @property
    def other_environment(self) -> str:
        """The variable that its flag would make one expect; empty if that is its variable.

        It differs in the number of a list, and is understood with a warning.
        """
        expected = environment_of(self.flag)
        return expected if expected != self.environment and "_" in expected else ""

    @property
    def names(self) -> SettingNames:
        """Today's names."""
        return SettingNames(flag=self.flag, environment=self.environment, key=self.key)

    def today(self, name: str) -> str:
        """Return the flag or the key that took the place of one of old; any other as it is."""
        for alias in self.aliases:
            if name == alias.flag:
                return self.flag
            if name == alias.key:
                return self.key
        return name

    @property
    def is_flag_alone_true(self) -> bool:
        """Whether the bare flag means true, so that it never takes the next word as its value."""
        return bool in self.kind.natives

    @property
    def default_text(self) -> str:
        """The default as shown in help and documentation."""
        if self.default_note:
            return self.default_note
        assert not callable(self.default)
        return self.default if isinstance(self.default, str) else ", ".join(self.default)
