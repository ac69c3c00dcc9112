"""NARs of trees, written without `ncps.nix`."""

from __future__ import annotations

from typing import Any

Tree = bytes | tuple[str, bytes] | dict[bytes, Any]


def text(*strings: bytes) -> bytes:
    """Return strings in the encoding of a NAR."""
    return b"".join(len(s).to_bytes(8, "little") + s + bytes(-len(s) % 8) for s in strings)


def written(tree: Tree) -> bytes:
    """Encode an object: contents, ("executable" or "symlink", bytes), or entries by name."""
    if isinstance(tree, bytes):
        return text(b"(", b"type", b"regular", b"contents", tree, b")")
    if isinstance(tree, tuple):
        kind, data = tree
        if kind == "symlink":
            return text(b"(", b"type", b"symlink", b"target", data, b")")
        return text(b"(", b"type", b"regular", b"executable", b"", b"contents", data, b")")
    entries = [entry(name, written(node)) for name, node in sorted(tree.items())]
    return directory(*entries)


def directory(*entries: bytes) -> bytes:
    return text(b"(", b"type", b"directory") + b"".join(entries) + text(b")")


def entry(name: bytes, node: bytes) -> bytes:
    return text(b"entry", b"(", b"name", name, b"node") + node + text(b")")


def archive(tree: Tree) -> bytes:
    """Return a complete NAR."""
    return text(b"nix-archive-1") + written(tree)
