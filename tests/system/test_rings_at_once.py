"""Two caches that ask each other for many objects at the same time, with one origin."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.e2e.daemon import UpstreamCache
from tests.system.stage import Stage

PATIENCE_S = 20
"""Timeout of an upstream in seconds: a wait in a circle takes as long."""

LIMIT_S = 8.0
"""Seconds within which all answers come, on a busy machine."""

EACH = 12
"""Requests to each cache at the same time: more than it sends to an upstream at the same time."""


def derivation(number: int) -> str:
    return f"{number:032}-x.drv"


class RingsAtOnceTests(Stage):
    def setUp(self) -> None:
        super().setUp()
        self.there = self.mounted()
        patient = (
            *("--cache-upstream-response-header-timeout", f"{PATIENCE_S}s"),
            *("--cache-upstream-dialer-timeout", f"{PATIENCE_S}s"),
            *("--cache-upstream-max-queries", "4"),
        )
        self.first, self.second = (self.make_daemon(options=patient) for _ in range(2))
        key = self.cache.key.public
        urls = [f"{self.second.url}?priority=1", f"{self.there.url}?priority=2"]
        self.first.upstreams = tuple(UpstreamCache(url, key) for url in urls)
        self.second.upstreams = (UpstreamCache(self.first.url, key),)
        self.at_once(self.first.start, self.second.start)

    def ask_both(self, path: Callable[[int], str], first: int) -> set[tuple[int, bytes]]:
        """Ask each cache for objects of its own at the same time; return the answers.

        :param path: of an object by its number.
        """
        numbers = range(first, first + EACH)
        asked = [(self.first, n) for n in numbers] + [(self.second, n + EACH) for n in numbers]
        began = time.monotonic()
        answers = self.at_once(*(lambda d=d, n=n: self.ask(d, path(n)) for d, n in asked))
        self.assertLess(time.monotonic() - began, LIMIT_S)
        return {(answer.status, answer.body) for answer in answers}

    def test_questions_do_not_wait_for_each_other(self) -> None:
        """Both caches serve the objects that exist, and soon answer 404 for the others."""
        kinds: tuple[Callable[[int], str], ...] = (
            lambda n: f"/{n:032}.narinfo",
            lambda n: f"/log/{derivation(n)}",
            lambda n: f"/build-trace-v2/{derivation(n)}/out.doi",
        )
        for path in kinds:
            self.assertEqual({(404, b"not found\n")}, self.ask_both(path, 100), path(100))
        text = b"built it\n"
        for number in range(200, 200 + 2 * EACH):
            self.there.serve(f"/log/{derivation(number)}", text)
        self.assertEqual({(200, text)}, self.ask_both(kinds[1], 200))
