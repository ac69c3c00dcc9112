"""Room: how many bytes downloads may still write to their file systems.

A part of each file system, the reserve, stays free for the database and for other programs. Its
size is a setting, but at most a tenth of the file system; otherwise a small one would never keep a
NAR. If the setting was given explicitly, it also holds on a small file system. A network file
system may answer slowly, so a thread asks it regularly.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from attrs import frozen

from ncps.aio.nowait import file_system_of, is_local
from ncps.errors import NcpsError, Refused, Unavailable
from ncps.storage.os_errors import reading

SHARE: Final = 10
"""The default reserve is at most one tenth of a file system."""

_MIB: Final = 1024 * 1024
_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})


@frozen(kw_only=True)
class Volume:
    """A directory, which stands for its file system.

    :param reserve: bytes to stay free.
    :param is_exact: whether `reserve` holds on a small file system as well.
    """

    directory: Path
    reserve: int
    is_exact: bool = False

    def reserve_of(self, total: int) -> int:
        """Return the bytes that stay free on a file system of `total` bytes."""
        return self.reserve if self.is_exact else min(self.reserve, total // SHARE)


@frozen(kw_only=True)
class _Space:
    free: int
    reserve: int


class Room:
    """The room on the file systems of downloads.

    :param volumes: a download must fit into each of them.
    """

    def __init__(self, *volumes: Volume) -> None:
        self._volumes = volumes
        self._known: dict[Volume, _Space | None] = {}
        self._local = frozenset(v for v in volumes if is_local(v.directory))

    def spare(self) -> int:
        """Return how many bytes downloads may write; negative if the reserve is in use.

        Raises Unavailable if the free space is unknown.
        """
        spaces = []
        for volume in self._volumes:
            if volume in self._local:
                spaces.append(_look(volume))
            elif volume in self._known:
                spaces.append(self._known[volume])
            else:
                raise Unavailable(f"it is not known yet how full {volume.directory} is")
        known = [space.free - space.reserve for space in spaces if space is not None]
        if not known:
            raise Unavailable("the file system does not say how full it is")
        return min(known)

    def look_blocking(self) -> None:
        """Ask all file systems for their free space; forget one that does not answer."""
        for volume in self._volumes:
            try:
                self._known[volume] = _look(volume)
            except Unavailable:
                self._known.pop(volume, None)

    @property
    def trouble(self) -> str:
        """The reason why no new NAR is kept, as of the last call of `look_blocking`, or empty."""
        for volume, space in self._known.items():
            if space is not None and space.free <= space.reserve:
                return (
                    f"nothing new is kept: {space.free // _MIB} MiB are free in"
                    f" {volume.directory}, and {space.reserve // _MIB} MiB are to stay free"
                    " (cache-storage-min-free)"
                )
        return ""

    def check(self) -> Iterator[str]:
        """Yield warnings about the room, at the start; blocks.

        Raises Refused if no NAR can ever be kept, Unavailable if a file system does not answer.
        """
        for volume in self._volumes:
            if (total := _total(volume.directory)) and volume.reserve_of(total) >= total:
                raise Refused(
                    f"cache-storage-min-free: {volume.reserve // _MIB} MiB are to stay free in"
                    f" {volume.directory}, whose file system has {total // _MIB} MiB: nothing"
                    " would ever be kept; leave the setting out for a tenth of it"
                )
        self.look_blocking()
        if self.trouble:
            yield self.trouble


def odd_place(temps: Path, root: Path) -> str:
    """Return a warning if unfinished downloads lie on another file system than the storage.

    It is empty if they do not, or if that is unknown.
    """
    try:
        if temps.stat().st_dev == root.stat().st_dev:
            return ""
        total = _total(temps)
    except (OSError, NcpsError):
        return ""
    where = f"cache-temp-path: {temps} is on another file system than the storage {root}"
    if file_system_of(temps) in _IN_MEMORY:
        return (
            f"{where}, one in memory with {total // _MIB} MiB: downloads use this memory, and a"
            " NAR that does not fit is not kept; leave the setting out"
        )
    return f"{where}: each NAR is copied once more when it is complete; leave the setting out"


def _look(volume: Volume) -> _Space | None:
    """Return the space of a file system; None if it does not say, as some FUSE file systems.

    Raises Unavailable if it does not answer.
    """
    with reading(str(volume.directory)):
        facts = os.statvfs(volume.directory)
    if not facts.f_blocks:
        return None
    reserve = volume.reserve_of(facts.f_blocks * facts.f_frsize)
    return _Space(free=facts.f_bavail * facts.f_frsize, reserve=reserve)


def _total(directory: Path) -> int:
    """Return the size of a file system; 0 if it does not say.

    Raises Unavailable if it cannot be asked.
    """
    with reading(str(directory)):
        facts = os.statvfs(directory)
    return facts.f_blocks * facts.f_frsize
