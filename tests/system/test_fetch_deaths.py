"""The daemon is killed at each step of a cold fetch: a restart serves the path, whole and right.

The steps are found as in `test_upload_deaths.py`: the daemon dies in place of its first system
call that changes something, then of its second, and so on, until a fetch is stored without a death.
"""

from __future__ import annotations

from itertools import count

from tests.machines.stepped import Steps
from tests.system.caches import StorePath
from tests.system.deaths import MOST
from tests.system.stage import Stage
from tests.waiting import wait_until


class FetchDeathTests(Stage):
    """A client that fetches a narinfo and its NAR, as Nix does."""

    def setUp(self) -> None:
        super().setUp()
        self.paths = [self.cache.add(20_000, compression="zstd") for _ in range(MOST + 1)]
        self.files = {path.file for path in self.paths}
        self.served_by = self.make_daemon(self.mounted())
        self.steps = Steps(self.served_by.directory)
        self.addCleanup(self.steps.close)
        self.served_by.main = "tests.machines.stepped"
        self.served_by.environment = self.steps.environment
        self.served_by.start()

    def fetch(self, path: StorePath) -> str:
        """Fetch a path, and wait until it is stored; return the target of its NAR.

        Return an empty text if the daemon died before it named the target.
        """
        target = ""
        try:
            target = self.nar_target(self.served_by, path)
            self.assertEqual(path.file, self.ask(self.served_by, target).body)
        except (OSError, AssertionError):
            if not self.steps.is_over:
                raise
        wait_until(lambda: self.steps.is_over or self.is_stored(path), "the NAR to be stored")
        return target

    def is_stored(self, path: StorePath) -> bool:
        """Return whether the last file of a fetch, the narinfo beside the NAR, is there.

        A request would be a step itself.
        """
        return any((self.served_by.storage / "store").rglob(f"{path.digest}.narinfo"))

    def see(self, path: StorePath, target: str) -> None:
        """Check after a death that clients get the path, and that the store holds nothing else."""
        daemon = self.served_by
        if target:
            self.assertEqual(path.file, self.ask(daemon, target).body)
        self.assert_served(daemon, path)
        for file in daemon.stored_nars():
            self.assertIn(file.read_bytes(), self.files)
        wait_until(lambda: not self.unfinished(daemon), "spools to go", daemon=daemon)
        self.wait_until_stored(daemon, path)

    def test_each_step(self) -> None:
        """A NAR is whole and right before each step: file, row and the narinfo beside it."""
        met: list[str] = []
        for number in count(1):
            self.assertLess(number, MOST, met)
            path = self.paths[number]
            self.steps.kill_at(number)
            target = self.fetch(path)
            if self.steps.spare():
                break
            met.append(self.steps.taken[-1])
            process = self.served_by.process
            wait_until(lambda: process.poll() is not None, "the death")  # noqa: B023
            self.served_by.start()
            try:
                self.see(path, target)
            except AssertionError as error:
                raise AssertionError(f"killed before {met[-1]}: {error}") from error
        kinds = {step.partition(" ")[0] for step in met}
        self.assertLessEqual({"pwrite64", "fsync", "rename", "mkdir", "sendto"}, kinds)
