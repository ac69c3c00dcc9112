"""Several processes that share memory: the nursery forks the workers."""

from __future__ import annotations

import os
import signal

from tests.system.crew import (
    MANY,
    SIZE,
    WorkersStage,
    children,
    number_of,
    nursery_of,
    shared_bytes,
)


class NurseryTests(WorkersStage):
    """Workers are forked from a process that has imported the program."""

    def test_workers_share_memory(self) -> None:
        """Early and late workers share most of the imported memory."""
        daemon, workers = self.crew(self.origin(), 2)
        os.kill(workers[0], signal.SIGKILL)
        self.wait_for_starts(daemon, 3)
        for pid in children(daemon.pid):
            self.assertGreater(shared_bytes(pid), 10_000_000)
        daemon.stop()

    def test_workers_outlive_it(self) -> None:
        """Without the nursery, workers serve, and a killed worker is replaced."""
        path = self.cache.add(SIZE)
        daemon, workers = self.crew(self.mounted(), 2)
        nursery = nursery_of(daemon.pid)
        os.kill(nursery, signal.SIGKILL)
        self.wait_for_log(daemon, "new workers take more time and memory")
        self.assertEqual(workers, children(daemon.pid))
        self.assert_served(daemon, path)
        os.kill(workers[1], signal.SIGKILL)
        self.wait_for_starts(daemon, 3)
        self.assertEqual({1, 2}, set(map(number_of, children(daemon.pid))))
        for _ in range(MANY):
            self.assert_served(daemon, path)
        daemon.stop()

    def test_it_ends_with_the_supervisor(self) -> None:
        """If the supervisor ends in order or is killed, no process is left."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            daemon, workers = self.crew(self.origin(), 2)
            everybody = [nursery_of(daemon.pid), *workers]
            os.kill(daemon.pid, number)
            self.wait_until_gone(everybody, "the nursery and the workers to end")
