"""The reader of configuration files: it returns plain values by dotted key.

YAML, TOML and JSON all give nested tables of text, numbers, booleans and lists.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from ncps.errors import Malformed

LARGEST = 1 << 20


class _DuplicateKeyError(ValueError):
    """A JSON object has a key twice."""


def _read_yaml(text: str) -> object:
    from ncps.settings.yaml_text import read_yaml  # noqa: PLC0415 - few installations have a YAML file

    return read_yaml(text)


def _read_toml(text: str) -> object:
    import tomllib  # noqa: PLC0415 - as above

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Malformed(str(error)) from None


def _object_of_pairs(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise _DuplicateKeyError(f"duplicate key {key[:64]!r}")
        found[key] = value
    return found


def _read_json(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_object_of_pairs)
    except json.JSONDecodeError as error:
        raise Malformed(f"line {error.lineno}: {error.msg}") from None
    except _DuplicateKeyError as error:
        raise Malformed(str(error)) from None


_SYNTAXES: Mapping[str, Callable[[str], object]] = {
    ".yaml": _read_yaml,
    ".yml": _read_yaml,
    ".toml": _read_toml,
    ".json": _read_json,
}


def _read(text: str, syntax: Callable[[str], object]) -> object:
    try:
        return syntax(text)
    except RecursionError:
        raise Malformed("is nested too deep") from None
    except Malformed:
        raise
    except (ValueError, OverflowError):
        # The parsers pass some values on to Python unchecked, such as numbers of 5000 digits.
        raise Malformed("has a value that cannot be read") from None


def parse_file(text: str, suffix: str) -> dict[str, object]:
    """Return the values of a file by dotted key.

    Raises Malformed if the text cannot be read; the message says what is wrong and, if known, in
    which line.

    :param suffix: of the file's name; with an unknown one, TOML, JSON and YAML are tried in turn.
    """
    syntax = _SYNTAXES.get(suffix.lower())
    tree = _read(text, syntax) if syntax is not None else _guess(text)
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise Malformed(f"should be a table of settings{'' if syntax else _ENDINGS}")
    found: dict[str, object] = {}
    _flatten(tree, "", found)
    return found


_ENDINGS: Final = f". Its name should end in {', '.join([*_SYNTAXES][:-1])} or {[*_SYNTAXES][-1]}"


def _guess(text: str) -> object:
    """Read a text in the first syntax in which it is valid."""
    for attempt in (_read_toml, _read_json):
        with suppress(Malformed):
            return _read(text, attempt)
    try:
        return _read(text, _read_yaml)
    except Malformed as error:
        raise Malformed(f"is neither TOML nor JSON nor YAML: {error}{_ENDINGS}") from None


def _flatten(tree: Mapping[str, object], prefix: str, found: dict[str, object]) -> None:
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and value:
            _flatten(value, f"{key}.", found)
        elif value is not None and value != {}:
            if key in found:
                raise Malformed(f"duplicate key {key[:64]!r}")
            found[key] = value


def read_file(path: Path) -> dict[str, object]:
    """Read a file. Raises OSError if it cannot be read, and Malformed as `parse_file` does."""
    with path.open("rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise Malformed(f"is larger than {LARGEST >> 20} MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Malformed(f"line {line}: is not UTF-8") from None
    return parse_file(text, path.suffix)
