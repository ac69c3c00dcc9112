"""A store full of pins reports that, and passes NARs through that have no room."""

from __future__ import annotations

from ncps.cache.closures.room import PinnedRoom
from tests.fakes.metrics import counted
from tests.fakes.upstream import Script
from tests.unit.cache.closures.rig import ClosuresCase


class RoomTests(ClosuresCase):
    def setUp(self) -> None:
        super().setUp()
        self.largest = 9_500
        self.restart()
        self.room = PinnedRoom(self.world, high=self.largest, low=7_000)

    def test_pins_that_leave_room_are_only_counted(self) -> None:
        """The metrics show them."""
        self.store_all(self.libc)
        self.pin(self.libc)
        self.get(self.room.look())
        metrics = self.metrics
        shown = [metrics.pins, metrics.pinned_nars, metrics.pinned_size, metrics.pinned_missing]
        self.assertEqual([counted(m) for m in shown], [1, 1, len(self.libc.file), 0])
        self.assertEqual(self.room.trouble, "")

    def test_a_store_full_of_pins(self) -> None:
        """The warning is shown, misses are passed through, and all ends with the pins."""
        self.store_all(*self.closure)
        self.pin(self.app)
        self.get(self.room.look())
        self.assertIn("remove pins, or raise cache-max-size", self.room.trouble)
        self.learn(self.tool)
        self.origin.scripts.append(Script(hold=True))
        opening = self.open(self.tool.key)
        self.origin.release()
        _, client = self.successResultOf(opening)
        self.successResultOf(client.done)
        self.assertEqual(client.data, self.tool.file)
        self.assertNotIn(self.tool.key, self.store.objects)
        self.assertEqual(self.reached, {"cache-max-size": 1})
        self.get(self.pinning.unpin(self.app.digest))
        self.get(self.room.look())
        self.assertEqual((self.room.trouble, self.admission.reserved), ("", 0))
        self.download(self.tool.key)
        self.assertIn(self.tool.key, self.store.objects)
