"""Migration: one step of the schema, as it lies in `schema/`."""

from __future__ import annotations

import hashlib
from importlib.resources import files

from attrs import frozen


@frozen(kw_only=True)
class Migration:
    """One step."""

    version: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of its statements, in hex; comments and layout do not count."""
        words = " ; ".join(" ".join(statement.split()) for statement in self.statements)
        return hashlib.sha256(words.encode()).hexdigest()

    @property
    def statements(self) -> list[str]:
        """Its statements; each ends with a semicolon at the end of a line."""
        lines = [line for line in self.text.splitlines() if not line.startswith("--")]
        parts = "\n".join(lines).split(";\n")
        return [part.strip().removesuffix(";") for part in parts if part.strip()]


def known(dialect: str) -> tuple[Migration, ...]:
    """Return the program's own migrations, in order."""
    found = []
    for file in files("ncps").joinpath("schema", dialect).iterdir():
        stem, dot, ending = file.name.rpartition(".")
        if dot and ending == "sql":
            version, _, name = stem.partition("_")
            text = file.read_text(encoding="utf-8")
            found.append(Migration(version=int(version), name=name, text=text))
    return tuple(sorted(found, key=lambda migration: migration.version))
