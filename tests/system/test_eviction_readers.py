"""Clients notice nothing while the store becomes smaller."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.system.test_eviction import AT_ONCE, Sized
from tests.waiting import wait_until

KIB = 1024
SEED = 20


class ReaderTests(Sized):
    """A daemon whose store is smaller than the requested NARs."""

    def test_a_reader_of_what_is_evicted_gets_it_whole(self) -> None:
        """A NAR that is removed while a slow client reads it arrives complete."""
        big = self.cache.add(1900 * KIB)
        paths = [self.cache.add(128 * KIB + number) for number in range(20)]
        daemon = self.daemon(self.mounted(), options=("--cache-max-size", "2M", *AT_ONCE))
        self.assert_served(daemon, big)
        self.wait_until_stored(daemon, big)
        slow = self.exchange(daemon, self.nar_target(daemon, big))
        for path in paths:
            self.assert_served(daemon, path)
        name = big.url.removeprefix("nar/")
        wait_until(
            lambda: name not in self.files(daemon),
            "the big one to go",
            daemon=daemon,
        )
        answer = slow.finish()
        self.assertEqual((200, True), (answer.status, answer.whole))
        self.assertEqual(big.file, answer.body)

    def test_many_clients_of_few_nars_over_a_tiny_store(self) -> None:
        """A NAR that is removed while clients ask for it arrives complete, without an error."""
        paths = [self.cache.add(100 * KIB + number) for number in range(30)]
        daemon = self.daemon(self.mounted(), options=("--cache-max-size", "512K", *AT_ONCE))
        dice = random.Random(SEED)
        calls: list[Callable[[], object]] = []
        for _ in range(8):
            order = dice.sample(paths, len(paths))
            calls.append(lambda order=order: [self.assert_served(daemon, p) for p in order])  # type: ignore[misc]
        self.at_once(*calls)
        bad = [line for line in daemon.log.splitlines() if '"error"' in line or "missing" in line]
        self.assertEqual([], bad[:5])
        wait_until(lambda: self.size(daemon) <= 512 * KIB, "the store is small", daemon=daemon)
        daemon.stop()
        self.assert_consistent(daemon)
