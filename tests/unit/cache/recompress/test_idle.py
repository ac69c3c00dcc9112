"""Recompression waits while the machine, or this process, has other work."""

from __future__ import annotations

from tests.fakes.samples import packed
from tests.fakes.upstream import Script
from tests.unit.cache.recompress.rig import TwinCase


class IdlenessTests(TwinCase):
    def test_load(self) -> None:
        """Other work on the machine stops the work of ncps; its own load does not."""
        self.load = 1.5
        self.assertFalse(self.idleness.is_idle())
        self.load = 1.0
        self.assertTrue(self.idleness.is_idle())
        self.idleness.worked()
        self.load = 3.0
        self.assertTrue(self.idleness.is_idle())
        self.clock.advance(121)
        self.assertFalse(self.idleness.is_idle())

    def test_unknown_load(self) -> None:
        """A machine with an unknown load is never idle."""
        self.load = None
        self.assertFalse(self.idleness.is_idle())

    def test_own_process(self) -> None:
        """A process that works is not idle; its work before the last sample does not count."""
        self.assertTrue(self.idleness.is_idle())
        self.clock.advance(10)
        self.used += 2.1
        self.assertFalse(self.idleness.is_idle())
        self.assertFalse(self.idleness.is_idle())
        self.clock.advance(10)
        self.assertTrue(self.idleness.is_idle())

    def test_downloads(self) -> None:
        """ncps makes no twin while a NAR arrives."""
        two = packed("two", b"more " * 1000, "xz")
        self.origin.add(two)
        self.learn(two)
        self.origin.scripts.append(Script(hold=True))
        opening = self.open(two.key)
        self.run_work()
        self.assertEqual([], self.transcoder.orders)
        self.origin.release()
        _, client = self.successResultOf(opening)
        self.successResultOf(client.done)
        self.clock.advance(10)
        self.run_work()
        self.assertEqual(2, len(self.transcoder.orders))
