"""A core with pins and removals, and an upstream that has a small closure."""

from __future__ import annotations

from ncps.cache.closures.pin_backup import PinBackup
from ncps.cache.closures.pinning import Pinning, PinSight, PinWish
from ncps.cache.closures.removing import RemovalReport, RemovalWish, Removing
from tests.fakes.closures import MemoryPins, MemoryRemovals
from tests.fakes.samples import Sample, sample
from tests.fakes.stores import MemoryConfigStore
from tests.unit.cache.rig import CoreCase

SIZE = 3000


def small(name: str, *references: Sample) -> Sample:
    """Return a path that refers to others, and to itself."""
    plain = sample(name, SIZE)
    paths = [plain.narinfo.store_path, *(each.narinfo.store_path for each in references)]
    return plain.altered(references=tuple(sorted(paths)))


class ClosuresCase(CoreCase):
    """`app` refers to `lib`, which refers to `libc`; `tool` refers to `libc`, too."""

    def setUp(self) -> None:
        self.config = MemoryConfigStore()
        super().setUp()
        self.libc = small("libc")
        self.lib = small("lib", self.libc)
        self.app = small("app", self.lib)
        self.tool = small("tool", self.libc)
        self.closure = [self.app, self.lib, self.libc]
        for each in (*self.closure, self.tool):
            self.origin.add(each)

    def restart(self) -> None:
        super().restart()
        assert isinstance(self.world.pins, MemoryPins)
        assert isinstance(self.world.removals, MemoryRemovals)
        self.pins, self.removals = self.world.pins, self.world.removals
        self.backup = PinBackup(self.world, self.config)
        self.pinning = Pinning(self.world, self.narinfos, self.nars, self.core.running, self.backup)
        self.removing = Removing(self.world, self.board, self.core.running, self.backup)

    def store_all(self, *samples: Sample) -> None:
        """Let narinfos be recorded and NARs stored."""
        self.learn(*samples)
        for each in samples:
            self.download(each.key)

    def pin(self, one: Sample, wish: PinWish | None = None) -> PinSight:
        return self.get(self.pinning.pin(one.digest, wish or PinWish()))

    def remove(self, *samples: Sample, **wish: bool) -> RemovalReport:
        digests = tuple(each.digest for each in samples)
        return self.get(self.removing.remove(RemovalWish(digests=digests, **wish)))

    def held(self, one: Sample) -> set[str]:
        """Return the paths that the pin of a root holds."""
        return self.catalog.pinned[one.digest]

    def is_here(self, one: Sample) -> bool:
        """Check that narinfo, NAR and sidecar agree; return whether they are there."""
        is_known = one.digest in self.catalog.entries
        self.assertEqual(is_known, one.key in self.store.objects, "bytes")
        self.assertEqual(is_known, one.digest in self.sidecars.texts, "sidecar")
        return is_known

    def here(self) -> list[str]:
        """Return the names of the paths that are here."""
        everything = (*self.closure, self.tool)
        return [each.narinfo.store_path.name[:-4] for each in everything if self.is_here(each)]
