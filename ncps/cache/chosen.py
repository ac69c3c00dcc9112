"""Chosen: of several files of one NAR, the one that clients were given a part of.

Where nobody has the file that a narinfo names, another file of the NAR may come in its place. From
then on it is the one behind the name: a client that was cut goes on in it, or not at all.
"""

from __future__ import annotations

from collections import OrderedDict

from attrs import evolve
from twisted.internet.interfaces import IReactorTime

from ncps.nix.narurl import NarKey
from ncps.ports import NarRecord

CHOSEN_S = 3600.0
MAX_CHOSEN = 10_000


class Chosen:
    """Remembers what a narinfo says of such a file, for an hour; the oldest go first."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._records: OrderedDict[NarKey, tuple[float, NarRecord]] = OrderedDict()

    def add(self, key: NarKey, record: NarRecord) -> None:
        """Note which file is fetched under a name."""
        self._records[key] = self._clock.seconds() + CHOSEN_S, evolve(record, key=key)
        self._records.move_to_end(key)
        while len(self._records) > MAX_CHOSEN:
            self._records.popitem(last=False)

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
