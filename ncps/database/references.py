"""SqlPathGraph: the graph of the recorded paths, from the texts of their narinfos."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from ncps.database.pins import batches
from ncps.database.pool import Database
from ncps.errors import Malformed
from ncps.nix.hashes import Hash
from ncps.nix.narurl import NarKey
from ncps.nix.storepath import is_digest
from ncps.ports.references import BATCH, PathFacts, PathGraph

_COLUMNS: Final = (
    "i.hash, i.store_path_name, i.narinfo, n.name, n.extension, n.nar_hash, n.nar_size,"
    " n.stored_size"
)
_FROM: Final = "FROM narinfos i JOIN nar_files n ON n.id = i.nar_file_id"
_LINE: Final = "References:"


class SqlPathGraph(PathGraph):
    """The graph of the paths in a catalog."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def among(self, digests: Collection[str]) -> Mapping[str, PathFacts]:
        found: dict[str, PathFacts] = {}
        for batch in batches(digests, BATCH):
            found |= await self._database.read(_among, batch)
        return found

    async def after(self, digest: str, limit: int = BATCH) -> Mapping[str, PathFacts]:
        return await self._database.read(_after, digest, limit)


def _among(txn: Any, digests: Sequence[str]) -> dict[str, PathFacts]:
    return _read(
        txn.execute(
            f"SELECT {_COLUMNS} {_FROM} WHERE i.hash IN ({', '.join('?' * len(digests))})",
            tuple(digests),
        ).fetchall()
    )


def _after(txn: Any, digest: str, limit: int) -> dict[str, PathFacts]:
    return _read(
        txn.execute(
            f"SELECT {_COLUMNS} {_FROM} WHERE i.hash > ? ORDER BY i.hash LIMIT ?",
            (digest, limit),
        ).fetchall()
    )


def _read(rows: Sequence[Sequence[Any]]) -> dict[str, PathFacts]:
    return {
        row[0]: PathFacts(
            base=f"{row[0]}-{row[1]}",
            references=_references(row[2], row[0]),
            nar=NarKey(row[3], row[4]),
            nar_hash=_hash(row[5]),
            nar_size=row[6],
            stored_size=row[7],
        )
        for row in rows
    }


def _hash(text: str | None) -> Hash | None:
    try:
        return None if text is None else Hash.parse(text)
    except Malformed:
        return None


def _references(narinfo: str, own: str) -> tuple[str, ...]:
    """Return the references in a narinfo, without parsing it, which takes ten times as long."""
    for line in narinfo.split("\n"):
        if line.startswith(_LINE):
            parts = {word[:32] for word in line[len(_LINE) :].split()}
            return tuple(sorted(part for part in parts if part != own and is_digest(part)))
    return ()
