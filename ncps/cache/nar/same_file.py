"""Whether two narinfos of one NAR are of one file, as far as their unsigned words tell."""

from __future__ import annotations

from ncps.nix.hashes import Hash
from ncps.nix.narurl import named_hash
from ncps.ports import NarRecord


def _names(nar: NarRecord) -> set[Hash]:
    """Hashes that a narinfo says are those of the file."""
    names = {named_hash(nar.origin_url), nar.file_hash}
    if nar.compression != "none":
        names.discard(nar.nar_hash)  # whatever the compressor made of it
    return {name for name in names if name is not None}


def is_same_file(nar: NarRecord, other: NarRecord) -> bool | None:
    """Whether two narinfos of one NAR are of one file; None: they do not tell."""
    ours, theirs = _names(nar), _names(other)
    has_same_url = nar.origin_url == other.origin_url and named_hash(nar.origin_url) is None
    if ours & theirs or has_same_url:
        return True
    return False if ours and theirs else None
