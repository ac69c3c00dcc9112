"""The stores, as the settings name them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import frozen

from ncps.aio.nowait import is_local
from ncps.aio.threads import Workers
from ncps.ports import ConfigStore, NarInfoStore, NarStore
from ncps.settings.model import Settings
from ncps.storage.calls import Calls
from ncps.storage.directory import LocalConfigStore, LocalNarInfoStore, LocalNarStore
from ncps.storage.lock import StoreLock
from ncps.storage.room import Room, Volume, odd_place
from ncps.storage.temps import Temps
from ncps.storage.tree import Tree

THREADS = 12
"""That write into a directory; they only wait for the disk, which syncs many as soon as one."""

READERS = 16
"""That read from it what is not in memory: a file that hangs keeps nobody from storing."""


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


def lock_of(root: Path) -> StoreLock:
    """Return the lock of a store in a directory, not held."""
    return StoreLock(root)


def stores(reactor: Any, settings: Settings) -> Stores:
    """Make the stores; nothing is opened. Unavailable."""
    root = settings.cache.storage.local
    if root is None:
        from ncps.assembly.bucket import in_bucket  # noqa: PLC0415 - half a second for boto3

        return in_bucket(reactor, settings)
    return _in_directory(reactor, settings, root)


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


def _in_directory(reactor: Any, settings: Settings, root: Path) -> Stores:
    temp_path = settings.cache.temp_path
    tree = Tree(root)
    # Threads of its own: bytes that arrive shall not wait for those that are being synced.
    workers = Workers(reactor, "store", THREADS)
    readers = Workers(reactor, "read", READERS)
    where = f"the storage {root}"
    calls = Calls(readers, clock=reactor, where=where, is_local=is_local(root))
    spools = tree.temps if temp_path is None else Temps(temp_path)

    def probe() -> None:
        tree.probe()
        began = calls.now()
        tree.check_present()
        calls.took(calls.now() - began)

    def mend() -> bool:
        tree.check_present()  # else the disk is not there, and nothing is to be made
        return sum(temps.mend() for temps in {spools, tree.temps}) > 0

    return Stores(
        spools=spools,
        nars=LocalNarStore(tree=tree, workers=workers, readers=calls),
        narinfos=LocalNarInfoStore(tree=tree, workers=workers),
        config=LocalConfigStore(tree=tree, workers=workers),
        room=Room(volume(settings, root), volume(settings, spools.directory, root)),
        odd=lambda: odd_place(spools.directory, root),
        probe=probe,
        sweep=lambda age_s: sum(temps.sweep(age_s) for temps in {spools, tree.temps}),
        mend=mend,
        lock=lock_of(root),
        threads=(readers, workers),
        trouble=lambda: calls.trouble,
    )
