"""Checks before anything runs, so that a start fails early with a reason."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from ncps.aio.certificate import load_blocking
from ncps.aio.tls import trouble_with_callbacks
from ncps.assembly.databases import database_lock, dialect
from ncps.assembly.edge import certificate_files
from ncps.assembly.former import refuse_former
from ncps.assembly.parts import Adapters
from ncps.database import migrate
from ncps.database.lock import DatabaseLock
from ncps.errors import StorageFull
from ncps.settings.schema.tree import Settings
from ncps.storage.lock import StoreLock

_log = Logger()


class Locks:
    """The locks of a process on its store and its database."""

    def __init__(self) -> None:
        self._held: list[StoreLock | DatabaseLock] = []

    def acquire(self, lock: StoreLock | DatabaseLock | None) -> None:
        """Take a lock, unless it is None. Raises Refused if another process holds it."""
        if lock is not None:
            lock.acquire()
            self._held.append(lock)

    @property
    def fds(self) -> list[int]:
        """The descriptors of the locks, for child processes that also hold them."""
        return [lock.fd for lock in self._held]

    def release(self) -> None:
        """Release all locks; a further call does nothing."""
        while self._held:
            self._held.pop().release()


def check(settings: Settings, parts: Adapters, locks: Locks) -> None:
    """Take the locks, probe the storage, update the schema.

    Raises Refused, StorageFull or Unavailable, whose text says what is wrong and what is right.
    """
    refuse_former(settings)
    if (files := certificate_files(settings)) is not None:
        load_blocking(files)
    stores = parts.stores
    _unless_full(stores.probe)
    locks.acquire(stores.lock)
    engine = dialect(settings)
    engine.prepare()
    locks.acquire(database_lock(settings))
    for migration in migrate.up(engine):
        _log.info(
            "applied migration {version} {name}", version=migration.version, name=migration.name
        )
    _unless_full(lambda: migrate.probe(engine))
    _unless_full(stores.spools.probe)
    for oddity in filter(None, (*stores.room.check(), stores.odd(), trouble_with_callbacks())):
        _log.warn("{oddity}", oddity=oddity)
    swept = stores.sweep(0.0)
    if swept:
        _log.info("removed {count} unfinished files of dead processes", count=swept)


def _unless_full(probe: Callable[[], object]) -> None:
    """Call a probe, and only warn if the place is full: ncps can still serve what it holds."""
    try:
        probe()
    except StorageFull as error:
        _log.warn("nothing new will be stored: {reason}", reason=str(error))
