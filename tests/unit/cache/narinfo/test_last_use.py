"""LastUse: times of last use, written in batches."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from ncps.cache.narinfo import state
from ncps.cache.narinfo.state import MAX_WAITING, LastUse
from ncps.errors import Unavailable
from ncps.nix.narurl import NarKey
from tests.fakes.samples import sample
from tests.unit.cache.rig import CoreCase


class UsesTests(CoreCase):
    def test_batches_and_bound(self) -> None:
        """Times of use are written in batches, and very many names do not fill the memory."""
        self.patch(state, "MAX_WAITING", 2)
        self.assertGreater(MAX_WAITING, 1000)
        uses = LastUse(self.clock, self.catalog)
        self.get(uses.flush())
        keys = [sample(name, 10).key for name in "abc"]
        for number, key in enumerate(keys):
            uses.nar(key)
            uses.narinfo(str(number))
        self.assertEqual((2, 2), (len(uses._nars), len(uses._narinfos)))
        uses.narinfos({"3", "4"})
        self.assertEqual(2, len(uses._narinfos))
        self.get(uses.flush())
        self.assertEqual((0, 0), (len(uses._nars), len(uses._narinfos)))
        uses.narinfos({"3", "4", "5"})
        self.assertEqual(2, len(uses._narinfos))

    def test_many_times_are_made_in_pieces(self) -> None:
        """Each piece is written before the next one is made."""
        pieces: list[tuple[int, int]] = []

        async def touch(narinfos: Mapping[str, datetime], nars: Mapping[NarKey, datetime]) -> None:
            pieces.append((len(narinfos), len(nars)))

        self.patch(state, "PIECE", 2)
        self.patch(self.catalog, "touch", touch)
        uses = LastUse(self.clock, self.catalog)
        for number in range(5):
            uses.narinfo(str(number))
        uses.nar(sample("a", 10).key)
        self.get(uses.flush())
        self.assertEqual([(2, 0), (2, 0), (1, 0), (0, 1)], pieces)

    def test_failure_loses_only_times(self) -> None:
        """Times that cannot be written are forgotten, and do not accumulate."""
        uses = LastUse(self.clock, self.catalog)
        uses.narinfo("x")
        self.catalog.failing_writes = Unavailable("locked")
        self.refused(uses.flush(), Unavailable)
        self.catalog.failing_writes = None
        self.get(uses.flush())
