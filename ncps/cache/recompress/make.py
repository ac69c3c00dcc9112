"""Making: makes a twin of a stored NAR.

    bytes of a verified NAR --> process --> new file, verified --> store
                                                                     |
         all processes drop the old narinfos <-- row and narinfos <--+

ncps stores the file before its row: a process that dies in between leaves an object without a row,
and the next attempt replaces that object. One transaction writes row and narinfos. If the NAR was
removed meanwhile, the new file is removed, too.
"""

from __future__ import annotations

from typing import Final, Literal

from attrs import evolve, frozen
from twisted.logger import Logger

from ncps.cache.cluster import lease_of
from ncps.cache.narinfo.record import Records
from ncps.cache.narinfo.state import Invalidation
from ncps.cache.recompress.convert import FORMAT, Converter
from ncps.cache.world import World
from ncps.errors import Conflict, NotFound
from ncps.nix.narurl import VARIANTS, NarKey, opaque_key
from ncps.ports import Lease, NarRecord

MOST_OF_PLAIN: Final = 90
"""Percentage of an uncompressed file's size that its twin may have. Clients have to unpack the
twin, which is only worth while if the twin saves bytes."""

Making = Literal["made", "joined", "large", "taken", "busy"]
"""The result of an attempt: a new twin was made; the twin was there already; the twin would be too
large; all its names belong to other bytes, or the NAR is gone; another process works on it."""


@frozen(kw_only=True)
class TwinRules:
    """Level and size of new twins.

    :param max_growth: size that a twin may have, as a percentage of the original's size.
    """

    level: int
    max_growth: int


class TwinMaker:
    """Makes twins."""

    _log = Logger()

    def __init__(
        self,
        world: World,
        converter: Converter,
        records: Records,
        board: Invalidation,
        rules: TwinRules,
    ) -> None:
        self._catalog = world.catalog
        self._twins = world.twins
        self._leases = world.leases
        self._metrics = world.metrics
        self._converter = converter
        self._records = records
        self._board = board
        self._rules = rules

    async def make(self, nar: NarRecord) -> Making:
        """Make a twin of a stored NAR, and change the narinfos so that they name the twin.

        Raises Corrupt if the NAR's bytes are wrong, NotFound if the NAR is gone, Blocked if it is
        blocked, Conflict if another process has made the twin meanwhile, StorageFull or Unavailable
        if the twin cannot be made now.
        """
        key = await self._name_of(nar)
        if key is None:
            return "taken"
        lease = await self._leases.try_hold(lease_of(key))
        if lease is None:
            return "busy"
        try:
            there = await self._catalog.nar(key)  # until now another process could remove the twin
            if there is not None and there.is_stored:
                if not _is_twin(there, nar):
                    return "busy"
                await self._join(evolve(there, last_used_at=None), nar, lease)
                return "joined"
            return await self._make(nar, key, lease)
        finally:
            await lease.release()

    async def _name_of(self, nar: NarRecord) -> NarKey | None:
        """Return the first name that the twin may have; None if all belong to other files."""
        assert nar.nar_hash is not None
        for variant in range(VARIANTS):
            key = opaque_key(FORMAT, nar.nar_hash, variant)
            there = await self._catalog.nar(key)
            if there is None:
                return key
            is_right = there.is_stored or there.made_level == self._rules.level
            if is_right and _is_twin(there, nar):
                return key
        return None

    async def _make(self, nar: NarRecord, key: NarKey, lease: Lease) -> Making:
        most = (nar.stored_size or 0) * self._percentage(nar) // 100
        room = min(nar.nar_size or most, most)
        async with self._converter.converted(nar, self._rules.level, room=room) as made:
            if made.file_size > most:
                return "large"
            if self._converter.too_large(made.file_size):
                return "large"
            there = await self._catalog.nar(key)
            if there is not None and there.was_stored and there.file_hash != made.file_hash:
                return "taken"
            twin = await self._converter.publish(nar, key, made, self._rules.level, lease)
            try:
                await self._join(twin, nar, lease)
            except (NotFound, Conflict):
                await self._converter.withdraw(key, lease)
                raise
        self._metrics.recompress_read.inc(nar.stored_size or 0)
        self._metrics.recompress_written.inc(made.file_size)
        self._log.info(
            "made {key} from {original}: {before} bytes became {after}, in {cpu:.2f} s of a"
            " processor",
            key=key.file_name,
            original=nar.key.file_name,
            before=nar.stored_size,
            after=made.file_size,
            cpu=made.cpu_s,
        )
        return "made"

    def _percentage(self, nar: NarRecord) -> int:
        most = self._rules.max_growth
        return min(most, MOST_OF_PLAIN) if nar.compression == "none" else most

    async def _join(self, twin: NarRecord, nar: NarRecord, lease: Lease) -> None:
        entries = await self._twins.join(twin, nar.key, lease.fence)
        await self._records.published(twin, entries)
        self._board.nar_changed(nar.key)


def _is_twin(there: NarRecord, nar: NarRecord) -> bool:
    return there.made_from == nar.key.file_name and there.nar_hash == nar.nar_hash
