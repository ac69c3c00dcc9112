"""Conversion of a given text into a typed value, or into a message that says what is right."""

from __future__ import annotations

from collections.abc import Mapping

from ncps.settings.kinds.values import parse_path
from ncps.settings.setting import Kind, Setting
from ncps.settings.showing import existing
from ncps.settings.sources import Given

_LONGEST_TEXT = 8192
_LARGEST_SECRET = 1 << 16
_TYPES: tuple[tuple[type, str], ...] = (
    (bool, "true or false"),
    (int, "a number"),
    (float, "a number"),
    (str, "text"),
    (list, "a list"),
    (dict, "a table"),
)


def _type_name(value: object) -> str:
    if value is None:
        return "nothing"
    return next((name for kind, name in _TYPES if isinstance(value, kind)), "a date or time")


def _text_of(kind: Kind, value: object) -> str:
    if isinstance(value, str):
        if len(value) > _LONGEST_TEXT:
            raise ValueError(f"is longer than {_LONGEST_TEXT} characters")
        return value
    if isinstance(value, bool) and bool in kind.natives:
        return "true" if value else "false"
    if value is False and kind.false:
        return kind.false
    is_number = isinstance(value, int) and not isinstance(value, bool) and int in kind.natives
    if isinstance(value, int) and is_number and abs(value) < 2**63:
        return str(value)
    if isinstance(value, float) and float in kind.natives:
        return repr(value)
    raise ValueError(f"should be {kind.expected}, not {_type_name(value)}")


def _items(setting: Setting, raw: object) -> list[object]:
    """Return the elements of a list. In flags and variables the kind's separator separates them."""
    if isinstance(raw, list):
        if None in raw:
            raise ValueError(f"element {raw.index(None) + 1} of the list is empty: leave it out")
        return [item for item in raw if item != ""]
    texts = (raw,) if isinstance(raw, str) else raw
    if not isinstance(texts, tuple):
        raise ValueError(f"should be a list, each {setting.kind.expected}, not {_type_name(raw)}")
    separator = setting.kind.separator
    return [part for text in texts for item in text.split(separator) if (part := item.strip())]


def _convert_one(setting: Setting, raw: object) -> object:
    kind = setting.kind
    if isinstance(raw, Mapping) and kind.from_table is not None:
        return kind.from_table(raw)
    text = _text_of(kind, raw)
    try:
        return kind.parse(text)
    except ValueError as error:
        if setting.is_secret:
            raise
        raise ValueError(f"{kind.quote(text)} {error}".strip()) from None


def _read_secret(given: Given) -> Given:
    raw = given.raw[-1] if isinstance(given.raw, tuple) else given.raw
    if not isinstance(raw, str):
        raise ValueError(f"should be a path, not {_type_name(raw)}")
    path = parse_path(raw)
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_SECRET + 1)
    except OSError as error:
        raise ValueError(
            f"{existing(path)} cannot be read: {error.strerror}. It should name a file that holds"
            " the value"
        ) from None
    if len(data) > _LARGEST_SECRET:
        raise ValueError(f"{existing(path)} is larger than {_LARGEST_SECRET >> 10} KiB")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{existing(path)} is not UTF-8") from None
    if not text.strip():
        raise ValueError(f"{existing(path)} is empty. It should hold the value")
    return Given(raw=text.rstrip("\r\n"), origin=given.origin, where=given.where)


def convert(setting: Setting, given: Given) -> object:
    """Return the value. Raises ValueError if it is wrong; the message does not name the source."""
    if given.is_path:
        given = _read_secret(given)
    raw = given.raw
    if setting.repeatable:
        return tuple(_convert_one(setting, item) for item in _items(setting, raw))
    return _convert_one(setting, raw[-1] if isinstance(raw, tuple) else raw)


def convert_default(setting: Setting, text: str | tuple[str, ...]) -> object:
    """Return the value of a default, which is always valid."""
    if isinstance(text, tuple):
        return tuple(setting.kind.parse(item) for item in text)
    return setting.kind.parse(text)
