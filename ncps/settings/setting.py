"""The description of a setting: its names, its kind, and its default."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping

from attrs import frozen

from ncps.settings.showing import quote
from ncps.settings.surroundings import Surroundings

Default = str | tuple[str, ...] | Callable[[Surroundings], str]


class Status(enum.Enum):
    """The effect of a setting that is given."""

    ACTIVE = "active"
    #: Read, checked for its form, and of no effect; any value but the default causes one warning.
    IGNORED = "ignored"
    #: Any value but the default is an error: to ignore it would surprise people or be unsafe.
    UNSUPPORTED = "unsupported"


@frozen(kw_only=True)
class Kind:
    """A kind of values: how their text is read and written.

    :param expected: completes "should be ..." in messages.
    :param parse: raises ValueError; its message says what is wrong and never repeats the text.
    :param natives: types other than text that a configuration file may use.
    :param show: a value as text that `parse` would read again, without its secrets;
        None to use `str`, or to show nothing of a secret.
    :param from_table: reads the long form of a list's element in a file; raises ValueError.
    :param suffix: the unit, added to the attribute's name.
    :param quote: the part of a refused text that a message may show; empty for nothing.
    :param separator: stands between the elements of a list in flags and variables.
    :param false: the text that false in a file stands for: YAML reads the word off as false.
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
    false: str = ""


@frozen(kw_only=True)
class SettingNames:
    """The names of a setting in its sources; empty for a source that cannot give it.

    :param flag: without the dashes in front.
    :param key: dotted path in a configuration file.
    :param is_current: whether an alias is as good as today's names. Others are deprecated.
    """

    flag: str = ""
    environment: str = ""
    key: str = ""
    is_current: bool = False

    def of_file(self) -> SettingNames:
        """Return the names under which a file that holds the value is given."""
        return SettingNames(
            flag=f"{self.flag}-file",
            environment=f"{self.environment}_FILE",
            key=f"{self.key}-file",
        )


def environment_of(flag: str) -> str:
    """Return the environment variable that corresponds to a flag."""
    return flag.upper().replace("-", "_")


@frozen(kw_only=True)
class Setting:
    """One setting, under all its names.

    :param default: a text in the syntax of users, or a function of the surroundings that makes it.
    :param default_note: describes a default that is not a constant.
    :param help: one paragraph for people.
    :param repeatable: a list; in flags and variables the kind's separator, which is a comma for
        most, stands between its elements.
    :param is_secret: the value is never shown, and may be given as the name of a file instead
        (`--FLAG-file`, `VARIABLE_FILE`, `key-file`).
    :param attribute: dotted path in the `Settings` tree; empty for what has no effect.
    :param shared: a limit for all workers together: each gets its part.
    :param counted: a limit whose effects are counted by its name.
    :param reloads: whether a running process applies a new value at SIGHUP.
    :param aliases: other names; the name in `names` wins. Former ones are read with a warning.
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
        """The variable that corresponds to the flag, if the setting has another one; else empty.

        The two differ for lists, in singular and plural. ncps reads it, with a warning.
        """
        expected = environment_of(self.flag)
        return expected if expected != self.environment and "_" in expected else ""

    @property
    def names(self) -> SettingNames:
        """The current names."""
        return SettingNames(flag=self.flag, environment=self.environment, key=self.key)

    def today(self, name: str) -> str:
        """Return the current flag or key for a former one; any other name as it is."""
        for alias in self.aliases:
            if name == alias.flag:
                return self.flag
            if name == alias.key:
                return self.key
        return name

    @property
    def is_flag_alone_true(self) -> bool:
        """Whether the bare flag means true, so that the next word is never its value."""
        return bool in self.kind.natives

    @property
    def default_text(self) -> str:
        """The default as shown in help and documentation."""
        if self.default_note:
            return self.default_note
        assert not callable(self.default)
        return self.default if isinstance(self.default, str) else ", ".join(self.default)
