"""Old names: URLs of NARs by store path, which this cache never hands out.

harmonia and nix-serve call a NAR `<hash part>-<NarHash>.nar`, Attic `<hash part>.nar`. A client
that got such URLs from another program at our address, or from a program that passed them on,
remembers them for 30 days. The hash part leads to the store path's NAR, and the signed NarHash
vouches for its bytes. The compression follows only from the name, or from a narinfo with the same
name.
"""

from __future__ import annotations

from ncps.errors import Malformed
from ncps.nix.narurl import COMPRESSIONS, NarKey, last_part
from ncps.ports import NarRecord

DIGEST = 32
"""Number of characters of a hash part."""


def is_named(nar: NarRecord, file_name: str) -> bool:
    """Return whether an old name stands for the stored file of a store path's NAR.

    :param file_name: begins with the hash part of that store path.
    """
    if last_part(nar.origin_url) == file_name:
        return True
    try:
        key = NarKey.parse(file_name[DIGEST + 1 :])
        named = key.as_hash()
    except Malformed:
        return False
    is_compressed_so = COMPRESSIONS[key.extension] == nar.compression
    return is_compressed_so and named in {nar.nar_hash, nar.file_hash}
