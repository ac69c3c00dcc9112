"""Naming: under which name a NAR is shown, so that the name is no other file's.

What a narinfo says of its file is not signed. So a conventional name is for stored bytes that were
found to have its hash, and this NAR inside. Of the opaque names a NAR gets the first that does not
stand for another file of it.
"""

from __future__ import annotations

from attrs import evolve

from ncps.cache.narinfo.verify import Vetted
from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import VARIANTS, is_opaque, opaque_key
from ncps.ports import Catalog, NarInfoEntry, NarRecord


async def named(catalog: Catalog, vetted: Vetted) -> tuple[Vetted, NarRecord | None]:
    """Give the NAR its name; return what is known of that name, too. Unavailable."""
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


def is_right(narinfo: NarInfo, there: NarRecord) -> bool:
    """Whether a recorded narinfo may show the name that it has for its NAR.

    Rows of before names were earned may have one that is another file's.
    """
    if is_opaque(there.key, narinfo.compression, narinfo.nar_hash):
        return True
    is_known = there.is_stored and there.verified_at is not None
    return is_known and there.nar_hash == narinfo.nar_hash


def agreeing(entry: NarInfoEntry, nar: NarRecord | None) -> NarInfoEntry:
    """The narinfo as it fits the bytes that are or were stored under its URL.

    Upstreams compress one NAR differently, and may say something untrue of the file; the bytes
    that came first stay.
    """
    if nar is None or not nar.was_stored or entry.narinfo.compression == "none":
        return entry
    narinfo = entry.narinfo
    file_hash = None if narinfo.file_hash is None else nar.file_hash or narinfo.file_hash
    file_size = None if narinfo.file_size is None else nar.file_size or narinfo.file_size
    return evolve(entry, narinfo=evolve(narinfo, file_hash=file_hash, file_size=file_size))


def _is_earned(there: NarRecord, nar: NarRecord) -> bool:
    """Whether stored bytes were found to be what a narinfo says, and to have the hash they bear."""
    return (
        there.is_stored
        and there.verified_at is not None
        and there.nar_hash == nar.nar_hash
        and there.compression == nar.compression
    )


def _is_of_another_file(there: NarRecord, nar: NarRecord) -> bool:
    """Whether a name may stand for another file than a narinfo says, though for the same NAR.

    Somebody may have a part of that one. Where all of it is here and right, it will do.
    """
    hashes = {there.file_hash, nar.file_hash}
    is_here = there.is_stored and there.verified_at is not None
    return not is_here and None not in hashes and len(hashes) > 1
