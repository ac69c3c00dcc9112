"""The storage as one value, for a directory as well as for a bucket."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from ncps.aio.grouping import MOST
from ncps.aio.threads import Workers
from ncps.ports import ConfigStore, ExtraStore, NarInfoStore, NarStore, RealisationStore
from ncps.settings.schema.tree import Settings
from ncps.storage.lock import StoreLock
from ncps.storage.room import Room, Volume
from ncps.storage.temps import Temps


@frozen(kw_only=True)
class Stores:
    """The storage ports, and the directory of unfinished downloads.

    :param room: the file systems in which a download must fit.
    :param odd: blocks; returns what is odd about the directory of unfinished downloads.
    :param probe: blocks; checks that the storage can be used, and makes missing directories.
    :param sweep: blocks; removes files of dead processes that are older than the given seconds, and
        returns their number. Pass 0 seconds only before anything else runs.
    :param mend: blocks; makes the directory of unfinished downloads again if a program has removed
        it, and returns whether it did. Raises StorageFull if nothing may be written, Unavailable
        if it fails now.
    :param lock: keeps other daemons away; None if several may share the storage.
    :param threads: the threads that only the storage uses.
    :param trouble: returns a problem of a storage that can still be used; empty for none.
    :param disconnect: closes idle connections.
    """

    spools: Temps
    nars: NarStore
    narinfos: NarInfoStore
    extras: ExtraStore
    realisations: RealisationStore
    config: ConfigStore
    room: Room
    probe: Callable[[], None]
    sweep: Callable[[float], int]
    mend: Callable[[], bool]
    lock: StoreLock | None = None
    threads: tuple[Workers, ...] = ()
    trouble: Callable[[], str] = lambda: ""
    odd: Callable[[], str] = lambda: ""
    disconnect: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Accept calls from now on."""
        for workers in self.threads:
            workers.start()

    async def stop(self, deadline_s: float) -> None:
        """Wait `deadline_s` seconds at most for calls to end, then disconnect."""
        for workers in self.threads:
            await workers.stop(deadline_s)
        self.disconnect()


def volume(settings: Settings, directory: Path, beside: Path | None = None) -> Volume:
    """Return the room that stays free on the file system of a directory.

    :param beside: the storage, if `directory` is another one: there, the setting is only a hint.
    """
    is_given = settings.origin("cache.storage.min-free") != "default"
    return Volume(
        directory=directory,
        reserve=settings.cache.storage.min_free_bytes,
        is_exact=is_given and beside is None,
    )


def most_together(settings: Settings) -> int:
    """Return how many small writes share one sync, at most."""
    return MOST if settings.cache.group_writes else 1
