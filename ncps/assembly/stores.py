"""The stores, as the settings name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ncps.aio.nowait import is_local
from ncps.aio.threads import Workers
from ncps.assembly.storage import Stores, most_together, volume
from ncps.observe.metrics import Metrics
from ncps.settings.schema.tree import Settings
from ncps.storage.calls import Calls
from ncps.storage.directory import DirectoryBlobs
from ncps.storage.lock import StoreLock
from ncps.storage.room import Room, odd_place
from ncps.storage.small_files import SmallFiles
from ncps.storage.stores import (
    BlobConfigStore,
    BlobExtraStore,
    BlobNarInfoStore,
    BlobNarStore,
    BlobRealisationStore,
)
from ncps.storage.temps import Temps
from ncps.storage.tree import Tree

THREADS = 12
"""Threads that write into a directory and wait for the disk, which syncs several at a time."""

READERS = 16
"""Threads that read bytes from the disk, so that a file that hangs blocks no write."""


def stores(reactor: Any, settings: Settings, metrics: Metrics) -> Stores:
    """Make the stores; they open nothing yet.

    Raises Unavailable if AWS's own configuration files cannot be read.
    """
    root = settings.cache.storage.local
    if root is None:
        from ncps.assembly.bucket import in_bucket  # noqa: PLC0415 - boto3 takes half a second

        return in_bucket(reactor, settings)
    return _in_directory(reactor, settings, root, metrics)


def _in_directory(reactor: Any, settings: Settings, root: Path, metrics: Metrics) -> Stores:
    temp_path = settings.cache.temp_path
    tree = Tree(root)
    # Threads of its own, so that arriving bytes do not wait for a sync.
    workers = Workers(reactor, "store", THREADS)
    readers = Workers(reactor, "read", READERS)
    where = f"the storage {root}"
    calls = Calls(readers, clock=reactor, where=where, is_local=is_local(root))
    counted = metrics.short_ways("file").inc
    small = SmallFiles(tree, workers, most=most_together(settings), shared=counted)
    blobs = DirectoryBlobs(tree, workers, calls, small)
    spools = tree.temps if temp_path is None else Temps(temp_path)

    def probe() -> None:
        tree.probe()
        began = calls.now()
        tree.check_present()
        calls.took(calls.now() - began)

    def mend() -> bool:
        tree.check_present()  # raises if the disk is not mounted: then make no directories
        return sum(temps.mend() for temps in {spools, tree.temps}) > 0

    return Stores(
        spools=spools,
        nars=BlobNarStore(blobs),
        narinfos=BlobNarInfoStore(blobs),
        extras=BlobExtraStore(blobs),
        realisations=BlobRealisationStore(blobs),
        config=BlobConfigStore(blobs),
        room=Room(volume(settings, root), volume(settings, spools.directory, root)),
        odd=lambda: odd_place(spools.directory, root),
        probe=probe,
        sweep=lambda age_s: sum(temps.sweep(age_s) for temps in {spools, tree.temps}),
        mend=mend,
        lock=StoreLock(root),
        threads=(readers, workers),
        trouble=lambda: calls.trouble,
    )
