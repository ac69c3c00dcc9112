"""Ready: stored NARs that may be sent again without a question to the catalog.

The answer to a client that asks for a stored NAR stays the same until the NAR's row changes. This
process gets a notice of each change by any process of the cache (`Invalidation`), and passes it to
the part that keeps such answers. Each client's answer opens the file anew, and only the file that
the row describes. So removed bytes are not sent even if the notice was lost.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from ncps.cache.nar.stored import StoredNar, is_hearsay, locate_stored, stored_key
from ncps.cache.narinfo.state import CacheState
from ncps.cache.world import World
from ncps.errors import Corrupt
from ncps.nix.narurl import NarKey
from ncps.ports import Body, NarRecord, Reopen, SteadyFile


class ReadyNars:
    """Says which NARs are ready.

    :param is_arriving: whether a NAR is being downloaded.
    :ivar memory: counts the changes of NARs; callers read the count before the row of a NAR.
    """

    def __init__(
        self, world: World, state: CacheState, is_arriving: Callable[[NarKey], bool]
    ) -> None:
        self._store = world.nars
        self._upstreams = world.upstreams
        self.memory = state.memory
        self._uses = state.uses
        self._is_arriving = is_arriving

    def watch(self, changed: Callable[[NarKey | None], object]) -> None:
        """See `Cache.watch_nars`."""
        self.memory.nar_changed = changed

    def repeated(self, keys: Iterable[NarKey]) -> None:
        """See `Cache.nars_repeated`."""
        for key in keys:
            self._uses.nar(key)

    def served(
        self,
        nar: NarRecord,
        changes: int,
        open_body: Callable[[NarRecord, int, int | None], Awaitable[Body]],
        spoil: Callable[[NarRecord, Corrupt], Awaitable[None]],
    ) -> StoredNar:
        """Return a stored NAR for a client.

        :param changes: as in `reopener`.
        """
        return StoredNar(
            nar=nar,
            upstream=self._upstreams.names.get(nar.upstream, ""),
            open_body=open_body,
            locate=partial(locate_stored, self._store),
            spoil=spoil,
            reopening=partial(self.reopener, changes),
        )

    def reopener(self, changes: int, nar: NarRecord) -> Reopen | None:
        """Return a function that opens a stored file; None if the catalog must be asked each time.

        :param changes: the count of the memory before the row was read.
        """
        if changes != self.memory.changes or stored_key(nar) != nar.key:
            return None
        size = nar.stored_size
        if size is None or size != nar.file_size or not nar.stored_tag:
            return None
        reopen = self._store.reopener(nar.key, size=size, tag=nar.stored_tag)
        return None if reopen is None else self._guarded(nar, reopen)

    def _guarded(self, nar: NarRecord, reopen: Reopen) -> Reopen:
        def reopen_if_ready() -> SteadyFile | None:
            if self._is_arriving(nar.key) or is_hearsay(nar, self._upstreams):
                return None
            return reopen()

        return reopen_if_ready
