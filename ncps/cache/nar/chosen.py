"""Chosen: of several files of one NAR, the one that clients were given a part of.

Where nobody has the file that a narinfo names, another file of the NAR may come in its place. From
then on it is the one behind the name: a client that was cut goes on in it, or not at all. The
catalog says so, too, for the next life of this process and for other replicas. A file that was
found to hold another NAR is behind no name any more.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress

from attrs import evolve
from twisted.internet.interfaces import IReactorTime

from ncps.aio.clocks import utc_now
from ncps.errors import StorageFull, Unavailable
from ncps.nix.hashes import Hash
from ncps.nix.narurl import NarKey
from ncps.ports import Catalog, NarRecord

CHOSEN_S = 3600.0
MAX_CHOSEN = 10_000


class Chosen:
    """Remembers what a narinfo says of such a file, for an hour; the oldest go first."""

    def __init__(self, clock: IReactorTime, catalog: Catalog) -> None:
        self._clock = clock
        self._catalog = catalog
        self._records: OrderedDict[NarKey, tuple[float, NarRecord]] = OrderedDict()

    async def add(self, key: NarKey, record: NarRecord) -> None:
        """Note which file is fetched under a name."""
        record = evolve(record, key=key)
        self._records[key] = self._clock.seconds() + CHOSEN_S, record
        self._records.move_to_end(key)
        while len(self._records) > MAX_CHOSEN:
            self._records.popitem(last=False)
        with suppress(Unavailable, StorageFull):
            await self._catalog.restate(record)

    async def found_wrong(self, nar: NarRecord | None, file_hash: Hash) -> None:
        """Remember that a file does not hold the NAR that its narinfo says.

        :param nar: what was known when it was fetched; its NarHash is known.
        """
        assert nar is not None
        assert nar.nar_hash is not None
        with suppress(Unavailable, StorageFull):  # it is found out again
            await self._catalog.note_wrong(nar.nar_hash, file_hash, utc_now(self._clock))
            row = await self._catalog.nar(nar.key)
            if row is not None and row.nar_hash == nar.nar_hash and row.file_hash == file_hash:
                await self._catalog.restate(
                    evolve(row, file_hash=None, file_size=None, upstream="", origin_url="")
                )

    def of(self, key: NarKey, nar: NarRecord) -> NarRecord | None:
        """What is known of the file under a name; None if it is the one that the row says.

        :param nar: the row.
        """
        until, record = self._records.get(key, (0.0, nar))
        is_valid = until > self._clock.seconds() and not nar.was_stored
        return record if is_valid and record.nar_hash == nar.nar_hash else None

    def forget(self, key: NarKey) -> None:
        """Forget it: nobody has it any more."""
        self._records.pop(key, None)
