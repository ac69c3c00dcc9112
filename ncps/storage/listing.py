"""The files of a tree, listed one directory at a time."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from ncps.storage.os_errors import reading


def files(path: str, base: str, *, follows: bool = True) -> Iterator[tuple[str, os.stat_result]]:
    """Yield key and properties of each regular file in a directory; omit files that disappear.

    Lazy. Raises Unavailable if the directory cannot be read.

    :param path: of the directory.
    :param base: key of the directory.
    :param follows: whether a link to a file counts as that file.
    """
    for entry in _scan(path):
        with reading(entry.path):
            try:
                facts = entry.stat(follow_symlinks=follows)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                if error.errno != errno.ELOOP:  # a link that leads to itself
                    raise
                continue
        if stat.S_ISREG(facts.st_mode):
            yield f"{base}/{entry.name}", facts


def files_in_shards(path: str, base: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield key and properties of each regular file in the shard directories below a directory.

    Lazy: one directory of a shard is open at a time. Raises Unavailable if one cannot be read.
    """
    for shard in _directories(path):
        for sub_shard in _directories(f"{path}/{shard}"):
            yield from files(f"{path}/{shard}/{sub_shard}", f"{base}/{shard}/{sub_shard}")


def _directories(path: str) -> Iterator[str]:
    for entry in _scan(path):
        with reading(entry.path):
            if entry.is_dir(follow_symlinks=False):
                yield entry.name


def _scan(path: str) -> Iterator[os.DirEntry[str]]:
    with reading(path):
        try:
            entries = os.scandir(path)
        except FileNotFoundError:
            return
    with entries:
        while True:
            with reading(path):
                entry = next(entries, None)
            if entry is None:
                return
            yield entry
