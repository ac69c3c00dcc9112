"""Small NARs are answered from memory and stored afterwards; the daemon is killed in between.

After the answer there are three steps: bytes, row, sidecar. If a daemon is killed between two of
them, clients lose nothing, and at most one more fetch is needed.
"""

from __future__ import annotations

import random
import time
from functools import partial

from ncps.cache.nar.stored import GATHER_S
from tests.e2e.daemon import Daemon
from tests.system.faults import Chunked, Cut, Fault, NoLength, Short, WrongBytes
from tests.system.stage import Stage

SIZE = 40_000
ROUNDS = 8
CROWD = 8
NEVER_S = 3600.0
TIMES = ("GATHER_S", "LONGEST_GATHER_S")
LONG_S = 2.0
OFF = (
    "--cache-download-small-size=0",
    "--cache-upstream-plain-requests=false",
    "--cache-group-writes=false",
)
"""Options that switch off the short cuts for small NARs."""


def gathering(seconds: float) -> dict[str, float]:
    """Return the constants with which a small NAR waits for this time after its answer."""
    return dict.fromkeys([f"ncps.cache.nar.stored.{name}" for name in TIMES], seconds)


class KilledTests(Stage):
    def setUp(self) -> None:
        super().setUp()
        self.paths = [self.cache.add(SIZE + number, compression="xz") for number in range(CROWD)]

    def serve_all(self, daemon: Daemon) -> None:
        self.at_once(*[lambda path=path: self.assert_served(daemon, path) for path in self.paths])

    def test_killed_before_the_bytes_are_written(self) -> None:
        """Clients had the whole NAR; the next daemon has no bytes and no row, and fetches again."""
        origin = self.mounted()
        daemon = self.make_daemon(origin)
        daemon.constants.update(gathering(NEVER_S))
        daemon.start()
        self.serve_all(daemon)
        self.serve_all(daemon)
        self.assertEqual([1] * CROWD, [origin.gets(path.nar_target) for path in self.paths])
        self.assertEqual([], daemon.stored_nars())
        daemon.kill()
        daemon.constants.clear()
        daemon.start()
        self.serve_all(daemon)
        self.wait_until_stored(daemon, *self.paths)
        self.assertEqual([2] * CROWD, [origin.gets(path.nar_target) for path in self.paths])

    def test_killed_at_any_moment(self) -> None:
        """A file in the store is always complete, and each path is served after a restart."""
        noise, origin = random.Random(5), self.mounted()
        daemon = self.make_daemon(origin)
        for _ in range(ROUNDS):
            daemon.start()
            self.serve_all(daemon)
            time.sleep(noise.uniform(0, 4 * GATHER_S))  # the moment of the kill
            daemon.kill()
            self.assert_whole(daemon)
            self.paths = [self.cache.add(SIZE + noise.randrange(SIZE)) for _ in self.paths]
            for path in self.paths:
                self.cache.mount_path(origin, path)
        daemon.start()
        self.paths = list(self.cache.paths)
        self.serve_all(daemon)
        self.wait_until_stored(daemon, *self.paths)
        self.assert_whole(daemon)

    def assert_whole(self, daemon: Daemon) -> None:
        files = {path.file for path in self.cache.paths}
        for file in daemon.stored_nars():
            self.assertIn(file.read_bytes(), files, file.name)


class WayTests(Stage):
    """The short cuts and the general code give the same answers."""

    def setUp(self) -> None:
        super().setUp()
        faults: list[Fault] = [
            Cut(9_000),
            Short(9_000),
            WrongBytes(9_000),
            Chunked(),
            NoLength(),
        ]
        self.sick = {self.cache.add(SIZE + n): fault for n, fault in enumerate(faults)}

    def seen(self, *options: str) -> list[object]:
        """Return the answers for NARs of a bad and a good upstream, and the stored files."""
        sick, well = self.origin(), self.mounted()
        for path, fault in self.sick.items():
            self.cache.mount_path(sick, path, "", fault)
        daemon = self.daemon(sick, well, options=options)
        found: list[object] = []
        for path in self.sick:
            target = self.nar_target(daemon, path)
            for method, part in (
                ("HEAD", ""),
                ("GET", "bytes=5-99"),
                ("GET", ""),
                ("GET", "bytes=9999999-"),
                ("GET", "bytes=39000-"),
                ("HEAD", ""),
            ):
                given = {"range": part} if part else {}
                answer = self.ask(daemon, target, method=method, **given)
                told = [answer.headers.get(name) for name in ("content-range", "etag")]
                found.append([method, part, answer.status, answer.whole, answer.body, *told])
                if method == "GET":
                    self.wait_until_stored(daemon, path)
        published = self.metric(daemon, 'ncps_downloads_total{outcome="published"}')
        return [*found, published, sorted(file.name for file in daemon.stored_nars())]

    def test_the_short_way_shows_nothing_else(self) -> None:
        """Status, ranges, bodies, tags, files and counters do not depend on the short cut."""
        self.assertEqual(self.seen(*OFF), self.seen())

    def test_the_ways_are_counted(self) -> None:
        """The metrics count the short cuts, and the settings switch them off."""
        path, ways = self.cache.paths[0], 'ncps_short_ways_total{kind="%s"}'
        short = self.daemon(self.mounted())
        long = self.daemon(self.mounted(), options=OFF)
        for daemon in (short, long):
            self.assert_served(daemon, path)
            self.wait_until_stored(daemon, path)
        self.assertEqual(1, self.metric(short, ways % "nar"))
        self.assertLess(1, self.metric(short, ways % "request"))
        for kind in ("nar", "request"):
            self.assertEqual(0, self.metric(long, ways % kind))

    def test_groups_are_counted(self) -> None:
        """NARs that are stored at the same time share files' syncs and a transaction."""
        paths = [self.cache.add(SIZE + number) for number in range(CROWD)]
        origin = self.mounted()
        for options, is_shared in (((), True), (OFF, False), (("--cache-group-writes=0",), False)):
            daemon = self.make_daemon(origin, options=options)
            daemon.constants.update(gathering(LONG_S))
            daemon.start()
            self.at_once(*[partial(self.assert_served, daemon, path) for path in paths])
            self.wait_until_stored(daemon, *paths)
            for kind in ("file", "transaction"):
                count = self.metric(daemon, f'ncps_short_ways_total{{kind="{kind}"}}')
                self.assertEqual(is_shared, count > 1, (options, kind, count))
