"""Migration: one step of the schema, a file in `schema/<dialect>/`.

The versions before the first release had seven steps to the first schema, numbered 1, 2, 4, 10, 11,
12 and 14, in `schema/<dialect>/unreleased/`. `migrate` upgrades their databases.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from importlib.resources.abc import Traversable

from attrs import frozen


@frozen(kw_only=True)
class Migration:
    """One step of the schema: statements in the SQL of one engine."""

    version: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the statements, in hex; comments and layout do not count."""
        words = " ; ".join(" ".join(statement.split()) for statement in self.statements)
        return hashlib.sha256(words.encode()).hexdigest()

    @property
    def statements(self) -> list[str]:
        """The statements; in the file each ends with a semicolon at the end of a line."""
        lines = [line for line in self.text.splitlines() if not line.lstrip().startswith("--")]
        parts = "\n".join(lines).split(";\n")
        return [part.strip().removesuffix(";") for part in parts if part.strip()]


def known(dialect: str) -> tuple[Migration, ...]:
    """Return the program's own migrations, in order; a new database gets all of them."""
    return _found(files("ncps").joinpath("schema", dialect))


def unreleased(dialect: str) -> tuple[Migration, ...]:
    """Return the migrations of the versions before the first release, in order.

    All of them together have the same result as the first one of `known`. A newer dialect has none.
    """
    directory = files("ncps").joinpath("schema", dialect, "unreleased")
    return _found(directory) if directory.is_dir() else ()


def _found(directory: Traversable) -> tuple[Migration, ...]:
    found = []
    for file in directory.iterdir():
        stem, dot, ending = file.name.rpartition(".")
        if dot and ending == "sql":
            version, _, name = stem.partition("_")
            text = file.read_text(encoding="utf-8")
            found.append(Migration(version=int(version), name=name, text=text))
    return tuple(sorted(found, key=lambda migration: migration.version))
