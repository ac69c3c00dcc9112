"""The time of day changes by an hour while the daemon runs, forward and back."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from email.utils import parsedate_to_datetime
from functools import partial

from tests.machines.faulty import MachineFaults
from tests.system.caches import StorePath
from tests.system.faults import Delay, Fault, Silence, Trickle
from tests.system.stage import Stage

HOUR = 3600.0
STEPS = (HOUR, -HOUR, 0.0)
ABSENT = f"/{'0' * 32}.narinfo"


#: Long enough for a busy machine, and much less than the change of the clock.
PATIENT = (
    *("--cache-upstream-response-header-timeout", "4s"),
    *("--cache-upstream-nar-timeout", "4s"),
    *("--cache-upstream-idle-timeout", "4s"),
    *("--cache-negative-ttl", "10m"),
)


class ClockTests(Stage):
    def setUp(self) -> None:
        super().setUp()
        self.clock = MachineFaults(self.directory / "faults.json")
        self.upstream = self.origin()
        self.ncps = self.make_daemon(self.upstream, options=PATIENT)
        self.ncps.program = self.clock.program
        self.ncps.start()

    def added(self, *, narinfo: Fault | None = None, nar: Fault | None = None) -> StorePath:
        """Return a path whose request has this fault."""
        path = self.cache.add(60_000, compression="none")
        self.cache.mount_path(self.upstream, path, "", *([] if nar is None else [nar]))
        if narinfo is not None:
            self.upstream.serve(f"/{path.digest}.narinfo", path.narinfo(), narinfo)
        return path

    def test_nothing_times_out_and_nothing_waits(self) -> None:
        """Transfers continue, ncps waits for slow upstreams, and gives up silent ones."""
        for step in STEPS:
            slow, late = self.added(nar=Trickle(40_000)), self.added(narinfo=Delay(1.0))
            silent = self.added(narinfo=Silence())
            targets = [
                self.nar_target(self.ncps, slow),
                f"/{late.digest}.narinfo",
                f"/{silent.digest}.narinfo",
            ]
            asked = [self.in_background(partial(self.ask, self.ncps, each)) for each in targets]
            for each in targets:
                self.upstream.wait_for(lambda each=each: self.upstream.gets(each))  # type: ignore[misc]
            self.clock.set(clock=step)
            arrived, waited, gave_up = (answer.result() for answer in asked)
            self.assertEqual((200, True, slow.file), (arrived.status, arrived.whole, arrived.body))
            self.assertEqual((200, 504), (waited.status, gave_up.status))
            self.assertEqual([1, 1], [self.upstream.gets(each) for each in targets[:2]])
            self.wait_until_stored(self.ncps, slow)
            self.assertEqual("hit", self.assert_served(self.ncps, slow).outcome)

    def test_absence_is_remembered_as_long_as_it_is(self) -> None:
        """ncps neither asks again too soon nor remembers an absence for longer."""
        self.assertEqual(404, self.ask(self.ncps, ABSENT).status)
        for step in STEPS:
            self.clock.set(clock=step)
            answer = self.ask(self.ncps, ABSENT)
            self.assertEqual((404, "negative"), (answer.status, answer.outcome))
        self.assertEqual(1, self.upstream.gets(ABSENT))

    def test_written_times_are_the_time_of_day(self) -> None:
        """Times of use, and the Date of answers, use the time of day."""
        path = self.added()
        self.clock.set(clock=HOUR)
        said = self.assert_served(self.ncps, path).headers["date"]
        self.wait_until_stored(self.ncps, path)
        self.assertLess(abs(time.time() + HOUR - _seconds(said)), 300)
        self.ncps.stop()
        with contextlib.closing(sqlite3.connect(self.ncps.directory / "catalog.sqlite")) as rows:
            for table in ("narinfos", "nar_files"):
                [(used,)] = rows.execute(f"SELECT last_used_at FROM {table}").fetchall()
                self.assertLess(abs(time.time() + HOUR - used / 1000), 300)


def _seconds(date: str) -> float:
    return parsedate_to_datetime(date).timestamp()
