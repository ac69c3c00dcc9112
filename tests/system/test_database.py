"""Another process has locked the SQLite database, such as a backup or a shell."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from tests.e2e.daemon import Daemon
from tests.system.caches import StorePath
from tests.system.stage import Stage
from tests.waiting import wait_until

SIZE = 500_000

#: Locks the database until its standard input ends.
HOLD = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
database.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
database.execute("ROLLBACK")
print("free", flush=True)
"""


class LockedTests(Stage):
    """No answer is wrong meanwhile, and no repair by hand is needed afterwards."""

    def lock(self, daemon: Daemon) -> subprocess.Popen[str]:
        """Start a process that locks the database; `unlock` ends it."""
        path = str(daemon.directory / "catalog.sqlite")
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(self.unlock, holder)
        assert holder.stdout is not None
        self.assertEqual("held\n", holder.stdout.readline())
        return holder

    def unlock(self, holder: subprocess.Popen[str]) -> None:
        if holder.returncode is None:
            said, _ = holder.communicate()
            self.assertEqual("free\n", said)

    def stored(self, daemon: Daemon, count: int) -> list[StorePath]:
        paths = [self.cache.add(SIZE) for _ in range(count)]
        for path in paths:
            self.cache.mount_path(self.upstream, path)
            self.assert_served(daemon, path)
        self.wait_until_stored(daemon, *paths)
        return paths

    def setUp(self) -> None:
        super().setUp()
        self.upstream = self.origin()

    def test_locked_for_a_moment(self) -> None:
        """Hits and misses wait for a short lock, and the NARs are stored."""
        daemon = self.daemon(self.upstream)
        (old,) = self.stored(daemon, 1)
        new = self.cache.add(SIZE)
        self.cache.mount_path(self.upstream, new)
        holder = self.lock(daemon)
        miss = self.in_background(lambda: self.nar(daemon, new))
        self.upstream.wait_for(lambda: self.upstream.gets(f"/{new.digest}.narinfo"))
        self.assertEqual("hit", self.assert_served(daemon, old).outcome)
        self.unlock(holder)
        answer = miss.result()
        self.assertEqual((200, True, new.file), (answer.status, answer.whole, answer.body))
        self.wait_until_stored(daemon, new)

    def test_locked_for_long(self) -> None:
        """Hits and misses are served, misses are not stored, absences are 404; ncps recovers."""
        daemon = self.daemon(self.upstream)
        old = self.stored(daemon, 3)
        new = [self.cache.add(SIZE) for _ in range(6)]
        for path in new:
            self.cache.mount_path(self.upstream, path)
        holder = self.lock(daemon)
        for answer in self.at_once(*[partial(self.nar, daemon, path) for path in [*old, *new]]):
            self.assertEqual((200, True), (answer.status, answer.whole))
            self.assertIn(answer.body, [path.file for path in [*old, *new]])
        self.assertEqual(404, self.ask(daemon, f"/{'0' * 32}.narinfo").status)
        self.assertEqual(200, self.ask(daemon, "/readyz").status)
        self.wait_for_log(daemon, "is served but not recorded", "locked")
        for path in [*old, *new]:  # the NARs that could not be recorded, again
            self.assert_served(daemon, path)
        self.unlock(holder)
        for path in new:
            self.assert_served(daemon, path)
        self.wait_until_stored(daemon, *old, *new)
        daemon.stop()
        self.upstream.stop()
        daemon.start()
        for path in old:
            self.assertEqual("hit", self.assert_served(daemon, path).outcome)
        for path in new:
            answer = self.ask(daemon, path.nar_target)
            self.assertEqual(("hit", path.file), (answer.outcome, answer.body))

    def test_killed_while_it_is_locked(self) -> None:
        """After the restart ncps records a NAR that it could not record before."""
        daemon = self.daemon(self.upstream)
        new = self.cache.add(SIZE)
        self.cache.mount_path(self.upstream, new)
        holder = self.lock(daemon)
        self.assert_served(daemon, new)
        wait_until(daemon.stored_nars, "the NAR to be published", daemon=daemon)
        daemon.kill()
        self.unlock(holder)
        daemon.start()
        self.assert_served(daemon, new)
        self.wait_until_stored(daemon, new)
        self.assertEqual(1, self.upstream.gets(new.nar_target))
