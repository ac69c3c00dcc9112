"""The walk: through how many modules a request goes, and how often from one to another.

The modules of `ncps.cache` and `ncps.ask` count. The World that they are made in is faked, and
formats, ports and tools are no part of the walk. A move is a call from one of these modules into
another one of them. The figures are those of today: a shorter walk changes them, a longer one needs
a reason.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Final

from tests.fakes.samples import sample
from tests.unit.cache.rig import CoreCase

COUNTED: Final = ("ncps.cache.", "ncps.ask.")
WORLD: Final = frozenset({"ncps.cache.world", "ncps.cache.cluster"})
"""The World and its part about other processes: values that are made of ports."""


def is_counted(module: str) -> bool:
    return module.startswith(COUNTED) and module not in WORLD


class Walk:
    """The modules that run during `take`, and the moves between them."""

    def __init__(self) -> None:
        self.modules: set[str] = set()
        self.moves: list[tuple[str, str]] = []

    def take(self, step: Callable[[], object]) -> None:
        gc.collect()  # otherwise garbage of earlier tests would be freed during the walk
        gc.disable()
        sys.setprofile(self._note)
        try:
            step()
        finally:
            sys.setprofile(None)
            gc.enable()

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        if event != "call":
            return
        here = frame.f_globals.get("__name__", "")
        if not is_counted(here):
            return
        self.modules.add(here)
        caller = frame.f_back
        while caller is not None:
            there = caller.f_globals.get("__name__", "")
            if is_counted(there):
                break
            caller = caller.f_back
        if caller is not None and there != here:
            self.moves.append((there, here))


class WalkTests(CoreCase):
    small_size = 1 << 20

    def setUp(self) -> None:
        super().setUp()
        self.sample = sample(size=100_000)
        self.origin.add(self.sample)
        self.walk = Walk()

    def assert_walk(self, modules: int, moves: int) -> None:
        found = (len(self.walk.modules), len(self.walk.moves))
        text = "\n".join([*sorted(self.walk.modules), *map(" > ".join, self.walk.moves)])
        self.assertEqual((modules, moves), found, text)

    def test_narinfo_hit(self) -> None:
        """A narinfo that is held in memory."""
        self.learn(self.sample)
        self.download(self.sample.key)
        self.learn(self.sample)
        self.walk.take(lambda: self.learn(self.sample))
        self.assert_walk(3, 4)

    def test_narinfo_miss(self) -> None:
        """A narinfo that the first upstream has."""
        self.walk.take(lambda: self.learn(self.sample))
        self.assert_walk(7, 18)

    def test_nar_miss(self) -> None:
        """A NAR that the first upstream has, up to its publication."""
        self.learn(self.sample)
        self.walk.take(lambda: self.download(self.sample.key))
        self.assert_walk(11, 65)
