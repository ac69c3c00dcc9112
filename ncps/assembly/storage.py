"""Storage: what the assembly has of it, whether it is a directory or a bucket."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from ncps.aio.threads import Workers
from ncps.ports import ConfigStore, NarInfoStore, NarStore
from ncps.settings.model import Settings
from ncps.storage.lock import StoreLock
from ncps.storage.room import Room, Volume
from ncps.storage.temps import Temps


@frozen(kw_only=True)
class Stores:
    """The three storage ports, and where unfinished downloads lie.

    :param room: where a download must fit.
    :param odd: says, blocking, what is odd about the place of unfinished downloads.
    :param probe: looks, blocking, whether the store can be used, and makes what is missing.
    :param sweep: removes, blocking, what dead processes left; returns how many files. Given the
        seconds that it must have lain there, 0 only before anything else runs.
    :param mend: makes again, blocking, the directory of unfinished downloads; returns whether
        something had removed it. StorageFull, Unavailable.
    :param lock: against another daemon; None where several may share the store.
    :param threads: of the store's own.
    :param trouble: what is wrong with it though it can be used; empty if nothing is.
    :param disconnect: closes what idle threads leave open.
    """

    spools: Temps
    nars: NarStore
    narinfos: NarInfoStore
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
        """Let calls end, so long at most, and close what is open."""
        for workers in self.threads:
            await workers.stop(deadline_s)
        self.disconnect()


def volume(settings: Settings, directory: Path, beside: Path | None = None) -> Volume:
    """Say how much stays free where bytes are written.

    :param beside: the storage, if this is another directory: the setting is for its neighbours.
    """
    is_given = settings.origin("cache.storage.min-free") != "default"
    return Volume(
        directory=directory,
        reserve=settings.cache.storage.min_free_bytes,
        is_exact=is_given and beside is None,
    )
