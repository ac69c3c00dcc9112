"""Reads a configuration file into a flat mapping from dotted key to plain value.

YAML, TOML and JSON say the same thing here: nested tables of text, numbers, booleans and lists.
YAML's anchors, aliases and tags are refused: with them a small file can stand for an endless one.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import yaml

from ncps.errors import Malformed

LARGEST = 1 << 20


class _DuplicateKeyError(ValueError):
    """A JSON object has a key twice."""


class _PlainLoader(yaml.SafeLoader):
    """SafeLoader for trees without anchors, aliases, tags and duplicate keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        what = ""
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            what = "anchors and aliases"
        elif getattr(event, "tag", None) is not None:
            what = "tags"
        if what:
            raise yaml.MarkedYAMLError(
                problem=f"{what} are not supported", problem_mark=event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            # Keys are names, also where YAML would read `on:` or `1:` as something else.
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(
                    problem="a key should be a name", problem_mark=key_node.start_mark
                )
            key_node.tag = "tag:yaml.org,2002:str"
            if key_node.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"duplicate key {key_node.value[:64]!r}",
                    problem_mark=key_node.start_mark,
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _read_yaml(text: str) -> object:
    try:
        return yaml.load(text, _PlainLoader)  # noqa: S506  # a SafeLoader, only stricter
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise Malformed(f"{line}{error.problem or error.context or 'not YAML'}") from None
    except yaml.reader.ReaderError as error:
        line_number = text.count("\n", 0, error.position) + 1
        raise Malformed(f"line {line_number}: a character that YAML does not allow") from None


def _read_toml(text: str) -> object:
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
        # Numbers of thousands of digits and the like, which the parsers let through to Python.
        raise Malformed("has a value that cannot be read") from None


def parse_file(text: str, suffix: str) -> dict[str, object]:
    """Return the values of a file by dotted key.

    :param suffix: of the file's name; an unknown one makes us try TOML, JSON and YAML.
    :raises Malformed: says the line, where there is one, and what is wrong.
    """
    syntax = _SYNTAXES.get(suffix.lower())
    if syntax is not None:
        tree = _read(text, syntax)
    else:
        for attempt in (_read_toml, _read_json):
            try:
                tree = _read(text, attempt)
                break
            except Malformed:
                continue
        else:
            try:
                tree = _read(text, _read_yaml)
            except Malformed as error:
                raise Malformed(f"is neither TOML nor JSON nor YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise Malformed("should be a table of settings")
    found: dict[str, object] = {}
    _flatten(tree, "", found)
    return found


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
    """Read a file; OSError as the system says, Malformed as `parse_file` says."""
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
