"""SqlRemovals: the removal of paths from the catalog, and the list of blocked paths.

Transactions that record narinfos and NARs look up blocked paths: see `catalog`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

from ncps.database import accounts
from ncps.database.accounts import NOTHING
from ncps.database.blocks import BLOCKED_PATHS, is_blocked_file
from ncps.database.pool import Database
from ncps.database.rows import NAR_COLUMNS, milliseconds, moment, nar_of
from ncps.errors import Refused
from ncps.nix.hashes import Hash
from ncps.nix.narurl import NarKey
from ncps.ports import EvictedNar, NarRecord
from ncps.ports.removals import MAX_BLOCKED, Block, Erased, Removals

_ALIKE: Final = (
    f"SELECT {NAR_COLUMNS} FROM nar_files n WHERE n.nar_hash = ?"  # noqa: S608 - columns
    " ORDER BY n.name, n.extension"
)
_ONE: Final = f"SELECT {NAR_COLUMNS} FROM nar_files n WHERE n.name = ? AND n.extension = ?"  # noqa: S608


class SqlRemovals(Removals):
    """The removals in a database; see `ncps.ports.removals`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def representations(self, key: NarKey) -> Sequence[NarRecord]:
        return await self._database.read(_representations, key)

    async def discard(self, keys: Collection[NarKey]) -> list[EvictedNar]:
        return await self._database.write_settled(_discard, tuple(keys))

    async def erase(self, digests: Collection[str], *, keeps_nars: bool = False) -> Erased:
        return await self._database.write_settled(_erase, tuple(digests), keeps_nars)

    async def block(self, blocks: Sequence[Block]) -> Erased:
        return await self._database.write_settled(_block, tuple(blocks))

    async def unblock(self, digest: str) -> bool:
        return await self._database.write(_unblock, digest)

    async def blocked(self) -> list[Block]:
        return await self._database.read(_blocked)

    async def is_blocked(self, digest: str) -> bool:
        return await self._database.look_up(BLOCKED_PATHS, digest) is not None

    async def is_blocked_file(self, file_hash: Hash) -> bool:
        return await self._database.point(is_blocked_file, (file_hash,))


def _representations(txn: Any, key: NarKey) -> list[NarRecord]:
    row = txn.execute(_ONE, (key.name, key.extension)).fetchone()
    if row is None:
        return []
    nar = nar_of(row)
    if nar.nar_hash is None:
        return [nar]
    return [nar_of(row) for row in txn.execute(_ALIKE, (str(nar.nar_hash),)).fetchall()]


def _in_order(keys: Iterable[NarKey]) -> list[NarKey]:
    """Sort keys in the order in which every transaction locks their rows, against deadlocks."""
    return sorted(set(keys), key=lambda key: (key.name, key.extension))


def _lock(txn: Any, key: NarKey) -> tuple[int, EvictedNar] | None:
    """Lock the row of a NAR; return its id, the record, and the digests of its narinfos."""
    row = txn.execute(
        f"SELECT {NAR_COLUMNS}, n.id FROM nar_files n"  # noqa: S608 - columns
        " WHERE n.name = ? AND n.extension = ? FOR UPDATE",
        (key.name, key.extension),
    ).fetchone()
    if row is None:
        return None
    digests = txn.execute(
        "SELECT hash FROM narinfos WHERE nar_file_id = ? ORDER BY hash", (row[-1],)
    ).fetchall()
    return int(row[-1]), EvictedNar(nar_of(row), tuple(digest for (digest,) in digests))


def _discard(txn: Any, keys: Sequence[NarKey]) -> list[EvictedNar]:
    found, change = [], NOTHING
    for key in _in_order(keys):
        locked = _lock(txn, key)
        if locked is None or not locked[1].nar.is_stored:
            continue
        txn.execute(
            "UPDATE nar_files SET stored_at = NULL, stored_size = NULL, stored_tag = '',"
            " verified_at = NULL WHERE id = ?",
            (locked[0],),
        )
        found.append(locked[1])
        change -= accounts.of_size(locked[1].nar.stored_size)
    accounts.add(txn, change)
    return found


def _keys_of(txn: Any, digests: Sequence[str]) -> list[NarKey]:
    keys = []
    for digest in digests:
        row = txn.execute(
            "SELECT n.name, n.extension FROM narinfos i JOIN nar_files n ON n.id = i.nar_file_id"
            " WHERE i.hash = ?",
            (digest,),
        ).fetchone()
        if row is not None:
            keys.append(NarKey(*row))
    return _in_order(keys)


def _erase(txn: Any, digests: Sequence[str], keeps_nars: bool) -> Erased:
    gone, keys = set(digests), _keys_of(txn, digests)
    if keeps_nars:
        return _forget(txn, keys, gone, is_shared=_always)
    families = [each for key in keys for each in _family(txn, key)]
    return _forget(txn, _in_order([*keys, *families]), gone, is_shared=bool)


def _always(_: Sequence[str]) -> bool:
    return True


def _family(txn: Any, key: NarKey) -> list[NarKey]:
    """Return the keys of a NAR, its original if it is a twin, and all twins of these."""
    alike = _representations(txn, key)
    names = {nar.family for nar in alike if nar.key == key}
    return [nar.key for nar in alike if nar.family in names]


def _forget(txn: Any, keys: Sequence[NarKey], gone: set[str], *, is_shared: Any) -> Erased:
    """Delete narinfos and the rows of NARs; the narinfos of a deleted row are deleted as well.

    :param is_shared: returns whether a NAR and its twins stay; called with the digests of the
        narinfos that still name one of them.
    """
    digests: list[str] = []
    nars, change = [], NOTHING
    rows = [locked for key in keys if (locked := _lock(txn, key)) is not None]
    left: dict[str, list[str]] = {}
    for _, its in rows:
        named = [digest for digest in its.digests if digest not in gone]
        left.setdefault(its.nar.family, []).extend(named)
    for row_id, its in rows:
        if is_shared(left[its.nar.family]):
            going = [digest for digest in its.digests if digest in gone]
            if going:
                txn.executemany("DELETE FROM narinfos WHERE hash = ?", [(d,) for d in going])
            digests += going
            continue
        txn.execute("DELETE FROM nar_files WHERE id = ?", (row_id,))
        digests += its.digests
        nars.append(its)
        change -= accounts.of_size(its.nar.stored_size)
    accounts.add(txn, change)
    return Erased(digests=tuple(sorted(digests)), nars=tuple(nars), keys=tuple(keys))


def _block(txn: Any, blocks: Sequence[Block]) -> Erased:
    digests = [block.digest for block in blocks]
    keys = _keys_of(txn, digests)
    hashes: dict[str, set[Hash]] = {block.digest: set(block.hashes) for block in blocks}
    for digest in digests:
        for key in _keys_of(txn, (digest,)):
            for nar in _representations(txn, key):
                hashes[digest] |= _sure_hashes(nar)
    for file_hash in {each for found in hashes.values() for each in found}:
        rows = txn.execute(
            "SELECT name, extension FROM nar_files WHERE nar_hash = ?", (str(file_hash),)
        ).fetchall()
        keys += [NarKey(*row) for row in rows]
    for block in sorted(blocks, key=lambda block: block.digest):
        _note(txn, block, hashes[block.digest])
    count = txn.execute("SELECT COUNT(*) FROM blocked_paths").fetchone()[0]
    if int(count) > MAX_BLOCKED:
        raise Refused(f"{MAX_BLOCKED} paths are blocked already: unblock some first")
    return _forget(txn, _in_order(keys), set(digests), is_shared=lambda _: False)


def _sure_hashes(nar: NarRecord) -> set[Hash]:
    """Return the signed or computed hashes of a NAR: others could block another path."""
    file_hash = nar.file_hash if nar.was_stored else None
    return {each for each in (nar.nar_hash, file_hash) if each is not None}


def _note(txn: Any, block: Block, hashes: Collection[Hash]) -> None:
    at = milliseconds(block.blocked_at)
    txn.execute(
        "INSERT INTO blocked_paths (hash, store_path_name, blocked_at) VALUES (?, ?, ?)"
        " ON CONFLICT (hash) DO UPDATE SET hash = excluded.hash",
        (block.digest, block.name, at),
    )
    txn.executemany(
        "INSERT INTO blocked_files (file_hash, hash, blocked_at) VALUES (?, ?, ?)"
        " ON CONFLICT (file_hash, hash) DO UPDATE SET hash = excluded.hash",
        [(str(each), block.digest, at) for each in sorted(hashes, key=str)],
    )


def _unblock(txn: Any, digest: str) -> bool:
    gone = txn.execute("DELETE FROM blocked_paths WHERE hash = ?", (digest,)).rowcount
    txn.execute("DELETE FROM blocked_files WHERE hash = ?", (digest,))
    return int(gone) > 0


def _blocked(txn: Any) -> list[Block]:
    hashes: dict[str, list[Hash]] = {}
    for text, digest in txn.execute(
        "SELECT file_hash, hash FROM blocked_files ORDER BY hash, file_hash"
    ).fetchall():
        hashes.setdefault(digest, []).append(Hash.parse(text))
    rows = txn.execute(
        "SELECT hash, store_path_name, blocked_at FROM blocked_paths ORDER BY hash"
    ).fetchall()
    return [
        Block(
            digest=digest,
            name=name,
            blocked_at=moment(int(at)),
            hashes=tuple(hashes.get(digest, ())),
        )
        for digest, name, at in rows
    ]
