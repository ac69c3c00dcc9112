"""Twins and several replicas."""

from __future__ import annotations

import zstandard

from tests.cluster.closing import KeeperStage
from tests.cluster.replicas import Replica
from tests.system.caches import StorePath
from tests.twins import CONSTANTS, OPTIONS
from tests.waiting import wait_until

SIZE = 300_000
MADE_S = 120.0
"""Seconds for a twin to be made or an original to be removed, on a busy machine."""


class Twinning(KeeperStage):
    """Tests for every database."""

    def make_replicas(self, *args: object, **options: object) -> list[Replica]:
        made = super().make_replicas(*args, **options)  # type: ignore[arg-type]
        for replica in made:
            replica.constants |= CONSTANTS
        return made

    def compressible(self) -> StorePath:
        """Return a path whose zstd file is a small part of its NAR."""
        path = self.cache.add(content=b"some words " * (SIZE // 11), compression="none")
        self.source = self.mounted()
        return path

    def twin_of(self, replica: Replica, path: StorePath) -> str:
        """Wait until a replica names a twin; return its target."""
        wait_until(
            lambda: self.nar_target(replica, path).endswith(".zst"),
            "the narinfo to name the twin",
            deadline=MADE_S,
            daemon=replica,
        )
        return self.nar_target(replica, path)

    def assert_twin(self, replica: Replica, path: StorePath, target: str) -> None:
        answer = self.ask(replica, target)
        self.assertEqual((200, True), (answer.status, answer.whole))
        decoder = zstandard.ZstdDecompressor().decompressobj()
        self.assertEqual(path.nar, decoder.decompress(answer.body))

    def test_life_of_a_twin(self) -> None:
        """One replica makes it; all serve it and the old URL; a removal ends both."""
        path = self.compressible()
        first, second = self.pair(*OPTIONS)
        old = self.nar_target(first, path)
        self.assert_served(first, path)
        targets = {self.twin_of(replica, path) for replica in (first, second)}
        (target,) = targets
        for replica in (first, second):
            self.assert_twin(replica, path, target)
            self.assertEqual(path.file, self.ask(replica, old).body)
        made = [
            self.metric(each, 'ncps_recompressions_total{outcome="made"}')
            for each in (first, second)
        ]
        self.assertEqual(1, sum(made))
        names = {each.rpartition("/")[2] for each in (old, target)}
        self.assertEqual(names, self.stored())
        self.assertEqual(1, self.source.gets(path.nar_target))
        self.withdraw(path)
        self.remove(second, path.digest)
        for each in (old, target, f"/{path.digest}.narinfo"):
            self.becomes(first, 404, each)
            self.becomes(second, 404, each)
        self.assertEqual(set(), self.stored())

    def test_original_goes(self) -> None:
        """After its time the bytes go, and each replica answers the URL from the upstream."""
        path = self.compressible()
        first, second = self.pair(*OPTIONS, "--cache-recompress-keep", "1s")
        old = self.nar_target(first, path)
        self.assert_served(first, path)
        target = self.twin_of(second, path)
        wait_until(
            lambda: self.stored() == {target.rpartition("/")[2]},
            "the original to go",
            deadline=MADE_S,
            daemon=first,
        )
        for replica in (first, second):
            self.assertEqual(path.file, self.ask(replica, old).body)
            self.assert_twin(replica, path, target)
