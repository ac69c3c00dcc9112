"""Caches that are each other's upstreams: two, three, and a mesh of five, with one origin."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tests.e2e.daemon import Daemon, UpstreamCache
from tests.system.caches import StorePath
from tests.system.origin import Origin
from tests.system.stage import Stage

PATIENCE_S = 15
"""Timeout of an upstream in seconds; a wait in a circle would take longer than the limit below."""

ONE_UPSTREAM_S = 2.0
"""Seconds within which one upstream answers, on a busy machine."""

AT_ONCE_S = 8.0
"""The same if all caches of a mesh are asked at the same time, which makes 300 requests."""


class RingTests(Stage):
    def test_rings_of_two_and_three_and_a_mesh_of_five(self) -> None:
        """A missing path is soon 404, and no cache remembers it; later all caches find it."""
        origin = self.mounted()
        patient = (
            *("--cache-upstream-response-header-timeout", f"{PATIENCE_S}s"),
            *("--cache-upstream-dialer-timeout", f"{PATIENCE_S}s"),
        )
        daemons = [self.make_daemon(options=patient) for _ in range(5)]
        self.connect(origin, daemons[:2], is_mesh=True)
        self.connect(origin, daemons[2:], is_mesh=False)
        self.at_once(*(daemon.start for daemon in daemons))
        self.check(origin, daemons[:2])
        self.check(origin, daemons[2:])
        self.at_once(*(daemon.stop for daemon in daemons))
        self.connect(origin, daemons, is_mesh=True)
        self.at_once(*(daemon.start for daemon in daemons))
        self.check(origin, daemons)

    def connect(self, origin: Origin, daemons: Sequence[Daemon], *, is_mesh: bool) -> None:
        """Make each cache ask the next, or in a mesh all others; the first asks the origin last."""
        key = self.cache.key.public
        for place, daemon in enumerate(daemons):
            others = [*daemons[place + 1 :], *daemons[:place]]
            urls = [other.url for other in (others if is_mesh else others[:1])]
            if place == 0:
                urls.append(origin.url)
            daemon.upstreams = tuple(
                UpstreamCache(f"{url}?priority={number}", key) for number, url in enumerate(urls, 1)
            )

    def check(self, origin: Origin, daemons: Sequence[Daemon]) -> None:
        """Ask every cache for a missing path, and again once the origin has it."""
        there, later = self.cache.add(2000), self.cache.add(3000)
        self.cache.mount_path(origin, there)
        for daemon in reversed(daemons):
            self.assertEqual(200, self.narinfo(daemon, there).status)
            self.assert_absent(daemon, later)
        self.at_once(
            *(lambda d=daemon: self.assert_absent(d, later, AT_ONCE_S) for daemon in daemons)
        )
        self.cache.mount_path(origin, later)
        for daemon in reversed(daemons):
            self.assert_served(daemon, later)

    def assert_absent(
        self, daemon: Daemon, path: StorePath, most_s: float = ONE_UPSTREAM_S
    ) -> None:
        """Check that a path is 404 within the time of one upstream."""
        began = time.monotonic()
        answer = self.narinfo(daemon, path)
        self.assertEqual(404, answer.status, answer.body)
        self.assertLess(time.monotonic() - began, most_s)
