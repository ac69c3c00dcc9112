"""The reader of YAML, which returns a tree of plain values.

It refuses anchors, aliases and tags: with them, a small file can expand without end.
"""

from __future__ import annotations

import yaml

from ncps.errors import Malformed


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
            # Keys are names, even if YAML would read `on:` or `1:` as something else.
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


def read_yaml(text: str) -> object:
    """Return the tree. Raises Malformed if the text is none, with the line if it is known."""
    try:
        return yaml.load(text, _PlainLoader)  # noqa: S506  # a SafeLoader, only stricter
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise Malformed(f"{line}{error.problem or error.context or 'not YAML'}") from None
    except yaml.reader.ReaderError as error:
        line_number = text.count("\n", 0, error.position) + 1
        raise Malformed(f"line {line_number}: a character that YAML does not allow") from None
