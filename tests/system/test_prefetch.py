"""Prefetch: each object once, within limits, without delay for clients.

The origin counts the requests; a client that walks a closure asks level by level, as Nix does.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.e2e.daemon import Daemon
from tests.system.caches import StorePath
from tests.system.crew import WorkersStage
from tests.system.faults import Delay, Stall, Status
from tests.system.origin import Origin
from tests.system.stage import Stage, log_lines
from tests.system.test_eviction import LIMITED, SIZE, Sized
from tests.waiting import wait_until

SMALL = ("--cache-prefetch", "small")
NARINFO = ("--cache-prefetch", "narinfo")
SERVED = "ncps_prefetched_total"


def narinfo_of(path: StorePath) -> str:
    """Return the target of a request for a narinfo."""
    return f"/{path.digest}.narinfo"


class Closures(Stage):
    """Makes closures at the origin, and walks them."""

    def closure(self, levels: int = 4, width: int = 4) -> list[StorePath]:
        """Make levels of paths, each of which refers to all of the next level; root first."""
        made: list[StorePath] = []
        below: list[StorePath] = []
        for level in reversed(range(levels)):
            count = width if level else 1
            below = [
                self.cache.add(2000, compression="zstd", references=below) for _ in range(count)
            ]
            made = [*below, *made]
        return made

    def walk(self, daemon: Daemon, paths: Sequence[StorePath]) -> None:
        """Ask for all narinfos, and then for all NARs, the leaves first."""
        targets = [self.nar_target(daemon, path) for path in paths]
        for path, target in reversed(list(zip(paths, targets, strict=True))):
            self.assertEqual(path.file, self.ask(daemon, target).body)

    def assert_once(self, origin: Origin, paths: Sequence[StorePath]) -> None:
        """Check that the origin was asked for each narinfo and each NAR once."""
        wanted = [*map(narinfo_of, paths), *(path.nar_target for path in paths)]
        self.assertEqual([1] * len(wanted), [origin.gets(target) for target in wanted])

    def wait_for(self, daemon: Daemon, series: str, value: float) -> None:
        """Wait until a metric has at least this value."""
        wait_until(lambda: self.metric(daemon, series) >= value, series, daemon=daemon)

    def wait_for_rest(self, daemon: Daemon) -> None:
        """Wait until no prefetch runs or waits."""
        wait_until(
            lambda: self.metric(daemon, "ncps_prefetch_pending") == 0,
            "all to be fetched",
            daemon=daemon,
        )


class OnceTests(Closures):
    def test_a_client_finds_all_of_a_closure_here(self) -> None:
        """After one request of a client, the rest of the closure comes by itself."""
        paths = self.closure()
        origin = self.mounted()
        daemon = self.daemon(origin, options=SMALL)
        self.narinfo(daemon, paths[0])
        self.wait_for(daemon, f'{SERVED}{{kind="nar"}}', len(paths))
        self.assert_once(origin, paths)
        origin.stop()
        self.walk(daemon, paths)
        self.assertEqual(len(paths), self.metric(daemon, 'ncps_prefetched_used_total{kind="nar"}'))
        self.assertEqual(
            len(paths) - 1, self.metric(daemon, 'ncps_prefetched_used_total{kind="narinfo"}')
        )

    def test_a_crowd_causes_one_request_for_each_thing(self) -> None:
        """Eight clients that walk at the same time join the prefetches."""
        paths = self.closure()
        origin = self.mounted()
        daemon = self.daemon(origin, options=SMALL)
        self.at_once(*[lambda: self.walk(daemon, paths)] * 8)
        self.assert_once(origin, paths)

    def test_large_nars_are_left_to_clients(self) -> None:
        small = self.cache.add(2000)
        large = self.cache.add(1_100_000, references=[small])
        origin = self.mounted()
        daemon = self.daemon(origin, options=SMALL)
        self.narinfo(daemon, large)
        self.wait_for(daemon, f'{SERVED}{{kind="nar"}}', 1)
        self.assertEqual((1, 0), (origin.gets(small.nar_target), origin.gets(large.nar_target)))

    def test_narinfos_alone(self) -> None:
        paths = self.closure()
        origin = self.mounted()
        daemon = self.daemon(origin, options=NARINFO)
        self.narinfo(daemon, paths[0])
        self.wait_for(daemon, f'{SERVED}{{kind="narinfo"}}', len(paths) - 1)
        self.assertEqual([1] * len(paths), [origin.gets(narinfo_of(path)) for path in paths])
        self.assertEqual([0] * len(paths), [origin.gets(path.nar_target) for path in paths])


class WorkersTests(Closures, WorkersStage):
    def test_two_workers_fetch_each_thing_once(self) -> None:
        """Clients of both workers ask at the same time."""
        paths = self.closure()
        origin = self.mounted()
        daemon, _ = self.crew(origin, 2, SMALL)
        self.at_once(*[lambda: self.walk(daemon, paths)] * 8)
        self.assert_once(origin, paths)
        daemon.stop()


class NothingTests(Closures):
    """Requests that cause no prefetch."""

    def assert_nothing(self, daemon: Daemon, origin: Origin, paths: Sequence[StorePath]) -> None:
        """Check that only the root's narinfo was fetched, and no prefetch waits."""
        self.wait_for_rest(daemon)
        self.assertEqual(0, self.metric(daemon, f'{SERVED}{{kind="narinfo"}}'))
        asked = [origin.gets(narinfo_of(path)) for path in paths]
        self.assertEqual([1] + [0] * (len(paths) - 1), asked)
        self.assertEqual(0, sum(origin.gets(path.nar_target) for path in paths))

    def test_off(self) -> None:
        paths = self.closure()
        origin = self.mounted()
        daemon = self.daemon(origin, options=("--cache-prefetch", "off"))
        self.narinfo(daemon, paths[0])
        self.assert_nothing(daemon, origin, paths)

    def test_head(self) -> None:
        paths = self.closure()
        origin = self.mounted()
        daemon = self.daemon(origin, options=SMALL)
        self.assertEqual(200, self.ask(daemon, narinfo_of(paths[0]), method="HEAD").status)
        self.assert_nothing(daemon, origin, paths)

    def test_question_of_another_cache(self) -> None:
        paths = self.closure()
        origin = self.mounted()
        daemon = self.daemon(origin, options=SMALL)
        answer = self.ask(daemon, narinfo_of(paths[0]), Via="1.1 ncps-0123456789abcdef.5f")
        self.assertEqual(200, answer.status)
        self.assert_nothing(daemon, origin, paths)


class BoundTests(Closures):
    def test_questions_of_a_minute(self) -> None:
        paths = self.closure(levels=2, width=20)
        origin = self.mounted()
        daemon = self.daemon(origin, options=[*NARINFO, "--cache-prefetch-max-questions", "3"])
        self.narinfo(daemon, paths[0])
        self.wait_for(daemon, 'ncps_prefetch_dropped_total{reason="allowance"}', 17)
        self.wait_for(daemon, f'{SERVED}{{kind="narinfo"}}', 3)
        self.assertEqual(1 + 3, sum(origin.gets(narinfo_of(path)) for path in paths))

    def test_bytes_of_a_minute(self) -> None:
        paths = self.closure(levels=2, width=20)
        origin = self.mounted()
        daemon = self.daemon(origin, options=[*SMALL, "--cache-prefetch-per-minute", "10K"])
        self.narinfo(daemon, paths[0])
        self.wait_for(daemon, 'ncps_prefetch_dropped_total{reason="allowance"}', 16)
        self.wait_for_rest(daemon)
        size = sum(len(path.file) * origin.gets(path.nar_target) for path in paths)
        self.assertLessEqual(size, 10 * 1024 + 2000)  # a part of the minute has passed
        self.assertGreater(size, 5000)

    def test_a_walk_that_no_client_follows_ends(self) -> None:
        paths = self.closure(levels=2, width=20)
        origin = self.origin()
        self.cache.mount(origin)
        for path in paths[1:]:
            origin.serve(narinfo_of(path), path.narinfo(), Delay(0.3))
        options = [*NARINFO, "--cache-upstream-max-prefetches", "1"]
        daemon = self.make_daemon(origin, options=options)
        daemon.constants["ncps.cache.ahead.walk.IDLE_S"] = 0.1
        daemon.start()
        self.narinfo(daemon, paths[0])
        self.wait_for(daemon, 'ncps_prefetch_dropped_total{reason="idle"}', 15)
        self.wait_for_rest(daemon)
        self.assertLess(sum(origin.gets(narinfo_of(path)) for path in paths), 6)

    def test_a_client_does_not_wait_for_guesses(self) -> None:
        """All connections of guesses wait for answers; a client has its own."""
        paths = self.closure(levels=2, width=20)
        other = self.cache.add(2000)
        origin = self.origin()
        self.cache.mount(origin)
        for path in paths[1:]:
            origin.serve(narinfo_of(path), path.narinfo(), Stall(0))
        options = [*NARINFO, "--cache-upstream-max-queries", "1"]
        daemon = self.daemon(origin, options=[*options, "--cache-upstream-idle-timeout", "60s"])
        self.narinfo(daemon, paths[0])
        origin.wait_for(lambda: sum(origin.gets(narinfo_of(path)) for path in paths) == 1 + 16)
        self.assert_served(daemon, other)
        origin.release()

    def test_failures_of_guesses_affect_no_client(self) -> None:
        """No line in the log, no open breaker, and a client gets the path."""
        paths = self.closure(levels=2, width=6)
        origin = self.origin()
        self.cache.mount(origin)
        for path in paths[1:]:
            origin.serve(narinfo_of(path), path.narinfo(), Status(500))
        daemon = self.daemon(origin, options=NARINFO)
        self.narinfo(daemon, paths[0])
        origin.wait_for(lambda: sum(origin.gets(narinfo_of(path)) for path in paths) >= 4)
        self.wait_for_rest(daemon)
        self.assertEqual(1, self.metric(daemon, "ncps_upstream_count_healthy"))
        self.assertEqual({"info"}, {line["level"] for line in log_lines(daemon)})
        for path in paths[1:]:
            origin.serve(narinfo_of(path), path.narinfo())
        self.walk(daemon, paths)


class EndTests(Closures):
    def test_sigterm_in_the_middle_of_a_walk(self) -> None:
        """The process ends without waiting for guesses."""
        paths = self.closure(levels=2, width=20)
        origin = self.origin()
        self.cache.mount(origin, "", Stall(100))
        options = [*SMALL, "--cache-upstream-idle-timeout", "60s", "--server-drain-timeout", "60s"]
        daemon = self.daemon(origin, options=options)
        self.narinfo(daemon, paths[0])
        origin.wait_for(lambda: sum(origin.gets(path.nar_target) for path in paths) >= 10)
        daemon.stop()  # within half the time that downloads of clients would get
        self.assertEqual([], daemon.stored_nars())
        origin.release()


class FullTests(Sized, Closures):
    def test_unrequested_nars_go_first(self) -> None:
        """A full store first removes NARs that no client has asked for."""
        guessed = [self.cache.add(SIZE) for _ in range(4)]
        root = self.cache.add(1000, references=guessed)
        used = [self.cache.add(SIZE) for _ in range(11)]
        origin = self.mounted()
        daemon = self.daemon(origin, options=[*LIMITED, *SMALL])
        self.fill(daemon, used[:4])
        self.narinfo(daemon, root)
        self.wait_for(daemon, f'{SERVED}{{kind="nar"}}', 5)
        names = set(self.files(daemon))
        self.fill(daemon, used[4:])
        self.wait_for_log(daemon, "removed", "NARs")
        gone = names - set(self.files(daemon))
        self.assertGreater(len(gone), 0)
        for path in used:
            self.assertEqual("hit", self.assert_served(daemon, path).outcome)

    def test_a_store_that_is_nearly_full_takes_none(self) -> None:
        guessed = [self.cache.add(SIZE) for _ in range(4)]
        root = self.cache.add(1000, references=guessed)
        used = [self.cache.add(SIZE) for _ in range(13)]
        origin = self.mounted()
        daemon = self.daemon(origin, options=[*LIMITED, *SMALL])
        self.fill(daemon, used)
        self.narinfo(daemon, root)
        self.wait_for(daemon, 'ncps_prefetch_dropped_total{reason="room"}', 4)
        self.assertEqual(0, sum(origin.gets(path.nar_target) for path in guessed))
