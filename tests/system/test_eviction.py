"""A store with a size stays below it, all NARs can be fetched again, and SIGKILL does no harm."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.daemon import Daemon
from tests.system.caches import Dialect, StorePath
from tests.system.origin import Origin
from tests.system.stage import Stage
from tests.waiting import wait_until

MIB = 1024 * 1024
LIMIT = 2 * MIB
SIZE = 150_000
#: No grace period: every NAR may be removed.
AT_ONCE = ("--cache-lru-grace", "0s")
LIMITED = ("--cache-max-size", "2M", *AT_ONCE)


class Sized(Stage):
    """Looks at a store from outside."""

    def files(self, daemon: Daemon) -> dict[str, int]:
        """Return the sizes of all NARs in the store, by name; some may go while they are listed."""
        found = {}
        for directory, _, names in os.walk(daemon.storage / "store" / "nar"):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    found[name] = Path(directory, name).stat().st_size
        return found

    def size(self, daemon: Daemon) -> int:
        return sum(self.files(daemon).values())

    def assert_consistent(self, daemon: Daemon) -> None:
        """Check, without the daemon, that every row has its bytes and the counter is their sum."""
        with contextlib.closing(sqlite3.connect(daemon.directory / "catalog.sqlite")) as database:
            rows = database.execute(
                "SELECT name, extension, stored_size FROM nar_files WHERE stored_at IS NOT NULL"
            ).fetchall()
            counted = database.execute("SELECT nars, bytes FROM accounts").fetchall()
        files = self.files(daemon)
        for name, extension, size in rows:
            file = f"{name}.nar.{extension}" if extension else f"{name}.nar"
            self.assertEqual(files.get(file), size, file)
        self.assertEqual(counted, [(len(rows), sum(size for _, _, size in rows))])

    def fill(self, daemon: Daemon, paths: Sequence[StorePath]) -> None:
        for path in paths:
            self.assert_served(daemon, path)
        self.wait_until_stored(daemon, *paths)


class SizeTests(Sized):
    def test_the_store_stays_below_its_size(self) -> None:
        """Many NARs pass through a small store; each can be fetched again, the last offline."""
        paths = [self.cache.add(SIZE) for _ in range(30)]
        paths += [self.cache.add(SIZE, dialect=Dialect.SNIX) for _ in range(3)]
        origin = self.mounted()
        daemon = self.daemon(origin, options=LIMITED)
        favourite = paths[0]
        for path in paths:
            self.assert_served(daemon, path)
            self.assert_served(daemon, favourite)
            wait_until(lambda: self.size(daemon) <= LIMIT, "the store is small", daemon=daemon)
        self.wait_for_log(daemon, "removed", "NARs")
        gets = origin.gets(favourite.nar_target)
        self.assertEqual(gets, 1, "what is used all the time is fetched once")
        for path in paths:
            self.assert_served(daemon, path)
        self.assertEqual(origin.gets(paths[1].nar_target), 2, "what was removed is fetched again")
        wait_until(lambda: self.size(daemon) <= LIMIT, "the store is small", daemon=daemon)
        self.assertGreater(self.size(daemon), LIMIT // 2)
        name = "ncps_lru_nar_files_evicted_total"  # counted at the end of a run
        wait_until(lambda: self.metric(daemon, name) > 20, "the removals", daemon=daemon)
        removed = self.metric(daemon, name)
        self.assertGreater(self.metric(daemon, "ncps_lru_bytes_freed_total"), removed * SIZE)
        self.wait_until_stored(daemon, *paths[-5:])
        origin.stop()
        for path in paths[-5:]:
            self.assertEqual("hit", self.assert_served(daemon, path).outcome)
        daemon.stop()
        self.assert_consistent(daemon)

    def test_a_nar_larger_than_the_store_is_passed_through(self) -> None:
        """It reaches its client complete, and no stored NAR is removed for it."""
        small, large = self.cache.add(SIZE), self.cache.add(LIMIT + 1000)
        unknown = self.cache.add(LIMIT + 1000, dialect=Dialect.BARE, compression="zstd")
        daemon = self.daemon(self.mounted(), options=LIMITED)
        self.fill(daemon, [small])
        for path in (large, unknown):
            self.assert_served(daemon, path)
            self.wait_for_log(daemon, "passed through but is not kept", "more than the store")
        self.assertEqual(len(self.files(daemon)), 1)
        self.assertEqual("hit", self.assert_served(daemon, small).outcome)

    def test_nars_in_use_stay(self) -> None:
        """Within the grace period a store may be too large, and the log says so."""
        paths = [self.cache.add(SIZE) for _ in range(20)]
        daemon = self.daemon(self.mounted(), options=["--cache-max-size", "2M"])
        self.fill(daemon, paths)
        self.wait_for_log(daemon, "nothing else may go yet")
        self.assertEqual(len(self.files(daemon)), 20)

    def test_a_schedule_makes_room(self) -> None:
        """At the scheduled time a store above the low mark becomes smaller."""
        paths = [self.cache.add(SIZE) for _ in range(10)]
        options = ["--cache-max-size", "2M", "--cache-lru-low-mark", "50", *AT_ONCE]
        daemon = self.daemon(self.mounted(), options=[*options, "--cache-lru-schedule=@every 1s"])
        for path in paths:
            self.assert_served(daemon, path)
        wait_until(lambda: self.size(daemon) <= LIMIT // 2, "there is room", daemon=daemon)


class KillTests(Sized):
    def full(self, count: int, origin: Origin) -> Daemon:
        """Return a daemon that stored `count` NARs and is not running."""
        paths = [self.cache.add(20_000, compression="none") for _ in range(count)]
        for path in paths:
            self.cache.mount_path(origin, path)
        daemon = self.daemon(origin)
        self.fill(daemon, paths)
        daemon.stop()
        return daemon

    def test_kill_in_the_middle_of_a_run(self) -> None:
        """The daemon is killed after the first removal, several times: each row has its bytes."""
        origin = self.mounted()
        daemon = self.full(150, origin)
        whole = daemon.options
        sizes = []
        for limit in (2500, 1900, 1300, 700):
            before = len(self.files(daemon))
            daemon.options = (*whole, "--cache-max-size", f"{limit}K", *AT_ONCE)
            daemon.start()
            wait_until(
                lambda count=before: len(self.files(daemon)) < count,  # type: ignore[misc]
                "something goes",
                daemon=daemon,
            )
            daemon.kill()
            self.assert_consistent(daemon)
            sizes.append(len(self.files(daemon)))
        self.assertEqual(sizes, sorted(sizes, reverse=True))
        daemon.options = whole
        daemon.start()
        for path in self.cache.paths:
            self.assert_served(daemon, path)
        self.wait_until_stored(daemon, *self.cache.paths)
        daemon.stop()
        self.assert_consistent(daemon)
