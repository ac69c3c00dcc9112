"""The declaration of settings: a field of a branch is a setting, and its path gives its names.

    @frozen(kw_only=True)
    class ServerSettings:
        max_headers: int = setting(integer(16, 10_000), "500", "Fields in the head of a request.")

In the branch `server` of the tree, this field declares the attribute `server.max_headers`, the key
`server.max-headers`, the flag `--server-max-headers` and the variable `SERVER_MAX_HEADERS`. A
branch that is made without arguments has the documented defaults. Fields whose defaults depend on
the machine are required.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar, cast

import attrs
from attrs import frozen

from ncps.settings.setting import Default, Kind, Setting, SettingNames, environment_of

_T = TypeVar("_T", bound=attrs.AttrsInstance)

_SETTING: Final = "ncps.setting"
_BRANCH: Final = "ncps.branch"


@frozen(kw_only=True)
class _Declared:
    """The setting that a field declares; a name that is None or empty follows from the path."""

    kind: Kind
    default: Default
    help: str
    note: str
    flag: str
    environment: str
    key: str | None
    group: str
    aliases: tuple[SettingNames, ...]
    is_secret: bool
    shared: bool
    counted: bool
    reloads: bool

    def at(self, path: str, name: str, group: str) -> Setting:
        """Return the setting of the field `name` of the branch at `path`."""
        key = (path + name.removesuffix(self.kind.suffix)).replace("_", "-")
        if self.key is not None:
            key = self.key and path.replace("_", "-") + self.key
        flag = self.flag or key.replace(".", "-")
        return Setting(
            flag=flag,
            environment=self.environment or environment_of(flag),
            key=key,
            attribute=path + name,
            kind=self.kind,
            default=self.default,
            default_note=self.note,
            help=self.help,
            group=self.group or group,
            repeatable=isinstance(self.default, tuple),
            is_secret=self.is_secret,
            shared=self.shared,
            counted=self.counted,
            reloads=self.reloads,
            aliases=self.aliases,
        )


@frozen
class _Branch:
    """The branch that a field holds, and the heading of its settings in the documentation."""

    cls: type[attrs.AttrsInstance]
    group: str


def setting(
    kind: Kind,
    default: Default,
    help: str,  # noqa: A002 - the word of the documentation
    *,
    note: str = "",
    flag: str = "",
    environment: str = "",
    key: str | None = None,
    group: str = "",
    aliases: tuple[SettingNames, ...] = (),
    is_secret: bool = False,
    shared: bool = False,
    counted: bool = False,
    reloads: bool = False,
    bare: object = attrs.NOTHING,
) -> Any:
    """Declare a field that is a setting.

    :param default: text, tuple of texts for a list, or function of the surroundings to make one.
    :param note: describes a default that is not a constant.
    :param key: the last part of the key, where that is not the name of the field.
    :param group: the heading in the documentation, where that is not the heading of the branch.
    :param shared: a limit for all workers together: each gets its part.
    :param counted: a limit: `ncps_limit_reached_total` counts by its name each request or object
        that is refused, cut or not kept because of it.
    :param reloads: a running process applies a new value at SIGHUP; see `ncps.assembly.reload`.
    :param bare: the value in a branch that is made without arguments, where the default needs the
        surroundings or other settings. Without it such a field is required.
    """
    if isinstance(default, tuple) and bare is attrs.NOTHING:
        bare = tuple(kind.parse(text) for text in default)
    elif isinstance(default, str) and bare is attrs.NOTHING:
        bare = kind.parse(default)
    declared = _Declared(
        kind=kind,
        default=default,
        help=help,
        note=note,
        flag=flag,
        environment=environment,
        key=key,
        group=group,
        aliases=aliases,
        is_secret=is_secret,
        shared=shared,
        counted=counted,
        reloads=reloads,
    )
    return attrs.field(default=bare, repr=not is_secret, metadata={_SETTING: declared})


def branch(cls: type[attrs.AttrsInstance], group: str = "") -> Any:
    """Declare a field that holds a branch.

    :param group: the heading in the documentation, where that is not the heading of the parent.
    """
    return attrs.field(factory=cls, metadata={_BRANCH: _Branch(cls, group)})


def settings_of(
    cls: type[attrs.AttrsInstance], path: str = "", group: str = ""
) -> Iterator[Setting]:
    """Yield every setting of a branch and of the branches inside it, in order."""
    for field in attrs.fields(cls):
        inner: _Branch | None = field.metadata.get(_BRANCH)
        declared: _Declared | None = field.metadata.get(_SETTING)
        if inner is not None:
            yield from settings_of(inner.cls, f"{path}{field.name}.", inner.group or group)
        elif declared is not None:
            yield declared.at(path, field.name, group)


def build(cls: type[_T], values: Mapping[str, object], path: str = "") -> _T:
    """Make a branch of the tree from values by dotted path. Raises KeyError if one is missing."""
    arguments: dict[str, object] = {}
    for field in attrs.fields(cls):
        here = path + field.name
        inner: _Branch | None = field.metadata.get(_BRANCH)
        arguments[field.name] = (
            values[here] if inner is None else build(inner.cls, values, f"{here}.")
        )
    return cls(**arguments)


def replaced(whole: _T, values: Mapping[str, object]) -> _T:
    """Return a copy of the tree in which values, by dotted path, are replaced."""
    parts: dict[str, object] = {}
    for path, value in values.items():
        name, _, rest = path.partition(".")
        before = parts.get(name, getattr(whole, name))
        parts[name] = replaced(cast("Any", before), {rest: value}) if rest else value
    tree: _T = attrs.evolve(cast("Any", whole), **parts)
    return tree


def divide(whole: _T, count: int) -> _T:
    """Return the branch for one of `count` workers, with its part of shared limits, rounded up.

    0 stays "no limit". Limits of one connection, request or file stay as they are.
    """
    parts: dict[str, object] = {}
    for field in attrs.fields(type(whole)):
        value = getattr(whole, field.name)
        declared: _Declared | None = field.metadata.get(_SETTING)
        if _BRANCH in field.metadata:
            parts[field.name] = divide(value, count)
        elif declared is not None and declared.shared:
            parts[field.name] = -(-value // count)
    part: _T = attrs.evolve(cast("Any", whole), **parts)
    return part
