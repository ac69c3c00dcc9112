"""The stores, as the settings name them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import frozen

from ncps.ports import ConfigStore, NarInfoStore, NarStore
from ncps.settings.model import Settings
from ncps.storage.local import LocalConfigStore, LocalNarInfoStore, LocalNarStore
from ncps.storage.lock import StoreLock
from ncps.storage.temps import Temps
from ncps.storage.tree import Tree
from ncps.workers import Workers

THREADS = 12
"""Of a store in a directory; they only wait for the disk, which syncs many as soon as one."""


@frozen(kw_only=True)
class Stores:
    """The three storage ports, and where unfinished downloads lie.

    :param room: directories whose file systems must have room for a download.
    :param probe: looks, blocking, whether the store can be used, and makes what is missing.
    :param sweep: removes, blocking, what dead processes left; returns how many files. Given the
        seconds that it must have lain there, 0 only before anything else runs.
    :param mend: makes again, blocking, the directory of unfinished downloads; returns whether
        something had removed it. StorageFull, Unavailable.
    :param lock: against another daemon; None where several may share the store.
    :param threads: of the store's own; None if it has none.
    :param disconnect: closes what idle threads leave open.
    """

    spools: Temps
    nars: NarStore
    narinfos: NarInfoStore
    config: ConfigStore
    room: tuple[Path, ...]
    probe: Callable[[], None]
    sweep: Callable[[float], int]
    mend: Callable[[], bool]
    lock: StoreLock | None = None
    threads: Workers | None = None
    disconnect: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Accept calls from now on."""
        if self.threads is not None:
            self.threads.start()

    async def stop(self, deadline_s: float) -> None:
        """Let calls end, so long at most, and close what is open."""
        if self.threads is not None:
            await self.threads.stop(deadline_s)
        self.disconnect()


def stores(reactor: Any, settings: Settings) -> Stores:
    """Make the stores; nothing is opened. Unavailable."""
    root = settings.cache.storage.local
    if root is None:
        from ncps.assembly.bucket import in_bucket  # noqa: PLC0415 - half a second for boto3

        return in_bucket(reactor, settings)
    return _in_directory(reactor, root, settings.cache.temp_path)


def _in_directory(reactor: Any, root: Path, temp_path: Path | None) -> Stores:
    tree = Tree(root)
    # Threads of its own: bytes that arrive shall not wait for those that are being synced.
    workers = Workers(reactor, "store", THREADS)
    spools = tree.temps if temp_path is None else Temps(temp_path)

    def mend() -> bool:
        tree.check_present()  # else the disk is not there, and nothing is to be made
        return sum(temps.mend() for temps in {spools, tree.temps}) > 0

    return Stores(
        spools=spools,
        nars=LocalNarStore(tree=tree, workers=workers),
        narinfos=LocalNarInfoStore(tree=tree, workers=workers),
        config=LocalConfigStore(tree=tree, workers=workers),
        room=(spools.directory, root),
        probe=tree.probe,
        sweep=lambda age_s: sum(temps.sweep(age_s) for temps in {spools, tree.temps}),
        mend=mend,
        lock=StoreLock(root),
        threads=workers,
    )
