"""Upkeep: unfinished files of dead processes, and the time zone of a schedule."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from ncps.assembly.upkeep import LEFT_FOR_S, local_zone, schedule_of, sweep_leftovers
from ncps.cache.upkeep.schedule import Cron, Every
from ncps.errors import Refused
from ncps.settings.kinds.schedule import parse_schedule

NOWHERE = Path("/nonexistent/localtime")
ZONES = Path("/usr/share/zoneinfo")


class LeftoverTests(SynchronousTestCase):
    def test_leftovers_are_swept_in_a_thread_of_the_store(self) -> None:
        """Only old files are removed, since other processes run."""
        ages: list[float] = []

        async def run(function: Callable[[float], int], age_s: float) -> int:
            return function(age_s)

        def sweep(age_s: float) -> int:
            ages.append(age_s)
            return 2

        stores = SimpleNamespace(threads=(SimpleNamespace(run=run),), sweep=sweep)
        parts: Any = SimpleNamespace(stores=stores, workers=None)
        with capturedLogs() as events:
            self.successResultOf(Deferred.fromCoroutine(sweep_leftovers(parts)))
        self.assertEqual([LEFT_FOR_S], ages)
        self.assertEqual([2], [event["count"] for event in events])


class ZoneTests(SynchronousTestCase):
    def offset(self, zone: tzinfo, month: int = 7) -> float:
        """Return the hours before UTC in the middle of a month."""
        offset = datetime(2026, month, 15, tzinfo=zone).utcoffset()
        assert offset is not None
        return offset.total_seconds() / 3600

    def test_the_machine_says_it(self) -> None:
        """TZ overrides /etc/localtime, which has summer time; without both it is UTC."""
        self.assertIs(local_zone({}, NOWHERE), UTC)
        self.assertIs(local_zone({"TZ": ""}, NOWHERE), UTC)
        self.assertEqual(self.offset(local_zone({"TZ": "Asia/Tokyo"}, NOWHERE)), 9)
        self.assertEqual(self.offset(local_zone({"TZ": ":Asia/Tokyo"}, NOWHERE)), 9)
        if not ZONES.exists():
            self.skipTest("the machine has no time zones of its own")
        tokyo = ZONES / "Asia" / "Tokyo"
        self.assertEqual(self.offset(local_zone({"TZ": str(tokyo)}, NOWHERE)), 9)
        berlin = local_zone({}, ZONES / "Europe" / "Berlin")
        self.assertEqual((self.offset(berlin), self.offset(berlin, 1)), (2, 1))

    def test_a_machine_that_does_not_know_is_told(self) -> None:
        """The error names the wrong value and the setting that helps."""
        broken = Path(self.mktemp())
        broken.write_bytes(b"nonsense")
        for environ, localtime, word in (
            ({"TZ": "Middle/Earth"}, NOWHERE, "TZ=Middle/Earth"),
            ({"TZ": "/nonexistent"}, NOWHERE, "TZ=/nonexistent"),
            ({}, broken, str(broken)),
        ):
            with self.assertRaises(Refused) as caught:
                local_zone(environ, localtime)
            self.assertIn(word, str(caught.exception))
            self.assertIn("cache-lru-schedule-timezone", str(caught.exception))

    def test_order_of_time_zones(self) -> None:
        """The zone in the schedule itself, then the setting, then the machine's."""
        for text, timezone, expected in (
            ("TZ=Asia/Tokyo @daily", "Europe/Berlin", 9),
            ("@daily", "Europe/Berlin", 2),
            ("@daily", "Local", -4),
        ):
            schedule = schedule_of(
                parse_schedule(text), timezone, environ={"TZ": "America/New_York"}
            )
            assert isinstance(schedule, Cron)
            self.assertEqual(self.offset(schedule.zone), expected)
        self.assertEqual(schedule_of(parse_schedule("@every 5s"), "Local"), Every(5.0))
