"""Naming: finds the name of a NAR, and the facts of its file, if some of them are recorded already.

If path and NAR are new here, the NAR gets its first opaque name without a call of this module.
"""

from __future__ import annotations

from attrs import evolve

from ncps.cache.narinfo.verify import Vetted
from ncps.nix.narurl import VARIANTS, opaque_key
from ncps.ports import Catalog, NarInfoEntry, NarRecord


async def named(catalog: Catalog, vetted: Vetted) -> tuple[Vetted, NarRecord | None]:
    """Give the NAR its name; return also the row of that name.

    Raises Unavailable if the catalog cannot be asked.
    """
    nar = vetted.nar
    assert nar.nar_hash is not None
    if vetted.conventional is not None:
        there = await catalog.nar(vetted.conventional)
        if there is not None and _is_earned(there, nar):
            return vetted.named(there.key), there
    for variant in range(VARIANTS):
        key = opaque_key(nar.compression, nar.nar_hash, variant)
        there = await catalog.nar(key)
        if there is None or not _is_of_another_file(there, nar):
            break
    return vetted.named(key), there


def agreeing(entry: NarInfoEntry, nar: NarRecord | None) -> NarInfoEntry:
    """Return the narinfo with the facts of the bytes that are or were stored under its URL.

    Upstreams compress one NAR differently, and may say something false about the file. The bytes
    that arrived first stay.
    """
    if nar is None or not nar.was_stored or entry.narinfo.compression == "none":
        return entry
    narinfo = entry.narinfo
    file_hash = None if narinfo.file_hash is None else nar.file_hash or narinfo.file_hash
    file_size = None if narinfo.file_size is None else nar.file_size or narinfo.file_size
    return evolve(entry, narinfo=evolve(narinfo, file_hash=file_hash, file_size=file_size))


def _is_earned(there: NarRecord, nar: NarRecord) -> bool:
    """Return whether stored bytes were verified for a narinfo, and have the hash in their name."""
    return (
        there.is_stored
        and there.verified_at is not None
        and there.nar_hash == nar.nar_hash
        and there.compression == nar.compression
    )


def _is_of_another_file(there: NarRecord, nar: NarRecord) -> bool:
    """Return whether a name may stand for another file of the same NAR than a narinfo's file.

    A client may have a part of that other file. If all of it is stored and right, it may be served
    instead, and the answer is False.
    """
    hashes = {there.file_hash, nar.file_hash}
    is_here = there.is_stored and there.verified_at is not None
    return not is_here and None not in hashes and len(hashes) > 1
