"""Stored paths are served, also while upstreams are away or wrong.

Upstreams take longer to answer than these clients wait: an answer shows that no upstream was
asked.
"""

from __future__ import annotations

from tests.system.caches import StorePath
from tests.system.faults import Silence
from tests.system.origin import Origin
from tests.system.stage import Stage
from tests.system.wire import DEADLINE
from tests.waiting import wait_until

SIZE = 150_000
WAITS = (
    *("--cache-upstream-dialer-timeout", f"{10 * DEADLINE:.0f}s"),
    *("--cache-upstream-response-header-timeout", f"{10 * DEADLINE:.0f}s"),
)
SMALL = (*("--cache-max-size", "1M"), *("--cache-lru-grace", "0s"))


class StaleTests(Stage):
    def test_everything_stored_is_served_by_a_daemon_that_meets_only_silence(self) -> None:
        """After a restart all stored paths are hits, although the upstreams never answer."""
        upstreams = [self.mounted(), self.mounted()]
        paths = [self.cache.add(SIZE, compression=c) for c in ("xz", "none", "zstd", "bzip2") * 2]
        for upstream in upstreams:
            self.cache.mount(upstream)
        daemon = self.daemon(*upstreams, options=WAITS)
        for path in paths:
            self.assert_served(daemon, path)
        self.wait_until_stored(daemon, *paths)
        for end in (daemon.stop, daemon.kill):
            end()
            for upstream in upstreams:
                upstream.plan = lambda _request: [Silence()]
            daemon.start()
            for path in paths:
                self.assertEqual("hit", self.narinfo(daemon, path).outcome)
                answer = self.assert_served(daemon, path)
                self.assertEqual("hit", answer.outcome)
                part = self.nar(daemon, path, Range="bytes=100-")
                self.assertEqual((206, path.file[100:]), (part.status, part.body))
                head = self.ask(daemon, self.nar_target(daemon, path), method="HEAD")
                self.assertEqual((200, "hit"), (head.status, head.outcome))
            self.assertEqual(200, self.ask(daemon, "/readyz").status)
            self.assertEqual(200, self.ask(daemon, "/nix-cache-info").status)
        for upstream in upstreams:
            upstream.release()

    def evicted(self, *upstreams: Origin) -> StorePath:
        """Return a daemon that has stored a path once and evicted it."""
        path = self.cache.add(SIZE)
        others = [self.cache.add(SIZE) for _ in range(9)]
        for upstream in upstreams:
            self.cache.mount(upstream)
        self.ncps = self.daemon(*upstreams, options=SMALL)
        for each in (path, *others):
            self.assert_served(self.ncps, each)
        name = path.url.rpartition("/")[2]
        wait_until(
            lambda: name not in [file.name for file in self.ncps.stored_nars()],
            "it to be evicted",
            daemon=self.ncps,
        )
        return path

    def wait_for_status(self, path: StorePath, status: int) -> None:
        wait_until(
            lambda: self.narinfo(self.ncps, path).status == status,
            f"status {status}",
            daemon=self.ncps,
        )

    def test_evicted_nar_whose_upstream_has_it(self) -> None:
        """It is an ordinary miss, and is stored again."""
        path = self.evicted(self.origin())
        self.assertEqual(200, self.narinfo(self.ncps, path).status)
        self.assertEqual("miss", self.assert_served(self.ncps, path).outcome)

    def test_evicted_nar_whose_upstreams_are_away(self) -> None:
        """Its narinfo is soon 404, also after a restart; later it is served again."""
        upstreams = [self.origin(), self.origin()]
        path = self.evicted(*upstreams)
        for upstream in upstreams:
            upstream.stop()
        self.wait_for_status(path, 404)
        self.ncps.stop()
        self.ncps.start()
        self.wait_for_status(path, 404)
        upstreams[1].start()
        self.wait_for_status(path, 200)
        self.assert_served(self.ncps, path)

    def test_evicted_nar_that_no_upstream_has_any_more(self) -> None:
        """Its narinfo is soon 404, even if no client has asked for the NAR."""
        upstream = self.origin()
        path = self.evicted(upstream)
        upstream.withdraw(f"/{path.digest}.narinfo")
        upstream.withdraw(path.nar_target)
        before = upstream.gets(path.nar_target)
        self.wait_for_status(path, 404)
        self.assertEqual(before, upstream.gets(path.nar_target))
        self.assertEqual(404, self.ask(self.ncps, path.nar_target).status)
