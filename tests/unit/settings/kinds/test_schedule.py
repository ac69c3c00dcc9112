"""Tests of the settings of the size of the store."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Malformed
from ncps.settings.kinds.schedule import ScheduleSetting, check_cron, parse_schedule, parse_zone
from tests.unit.settings.around import load_with, problems_of


class ScheduleTests(SynchronousTestCase):
    def test_schedules_of_the_go_program(self) -> None:
        """Cron, its words, intervals, and a time zone in front are valid."""
        for text, cron, every_s, zone in (
            ("0 2 * * *", "0 2 * * *", 0.0, ""),
            ("  0 2 * * *", "0 2 * * *", 0.0, ""),
            ("0 2 ? * MON-FRI", "0 2 * * MON-FRI", 0.0, ""),
            ("@daily", "0 0 * * *", 0.0, ""),
            ("@Weekly", "0 0 * * 0", 0.0, ""),
            ("@every 1h30m", "", 5400.0, ""),
            ("CRON_TZ=Asia/Tokyo 0 2 * * *", "0 2 * * *", 0.0, "Asia/Tokyo"),
            ("TZ=UTC @hourly", "0 * * * *", 0.0, "UTC"),
        ):
            expected = ScheduleSetting(text=text, cron=cron, every_s=every_s, zone=zone)
            self.assertEqual(parse_schedule(text), expected)
            self.assertTrue(expected)
        self.assertFalse(parse_schedule(""))

    def test_invalid_schedules(self) -> None:
        """All other texts are refused, with a hint at what is right."""
        for text in (
            "0 2 * *",
            "0 0 2 * * *",
            "0 25 * * *",
            "@sometimes",
            "@every",
            "@every day",
            "@every 10ms",
            "0 0 30 2 *",
            "TZ=Middle/Earth 0 2 * * *",
        ):
            with self.assertRaises(ValueError, msg=text):
                parse_schedule(text)

    def test_invalid_cron_fields(self) -> None:
        """Wrong fields, a wrong number of fields, and dates that never come are errors."""
        for text in ("", "* * * *", "0 0 2 * * *", "61 * * * *", "x * * * *", "0 0 30 2 *"):
            with self.assertRaises(Malformed):
                check_cron(text)
        for text in ("0 2 * * *", "*/5 0-6 1,15 JAN-MAR MON-FRI", "0 0 29 2 *"):
            check_cron(text)

    def test_time_zones(self) -> None:
        """Local and the zones of the machine are valid; paths and directories are not."""
        self.assertEqual(
            [parse_zone(zone) for zone in ("", "Local", "UTC")], ["Local", "Local", "UTC"]
        )
        for text in ("Middle/Earth", "/etc/localtime", "../UTC", "Europe", "\0"):
            with self.assertRaises(ValueError, msg=text):
                parse_zone(text)


class SizeTests(SynchronousTestCase):
    def test_nothing_is_removed_by_default(self) -> None:
        """Without the setting, and with 0, the store has no maximum size."""
        for flags in ({}, {"cache-max-size": ""}, {"cache-max-size": "0"}):
            self.assertEqual(load_with(flags).cache.max_size_bytes, 0)
        self.assertEqual(load_with({"cache-max-size": "10G"}).cache.max_size_bytes, 10 * 2**30)

    def test_a_schedule_needs_a_size(self) -> None:
        """A schedule without a maximum size is an error that names both settings."""
        for flags in ({}, {"cache-max-size": "0"}):
            [problem] = problems_of({"cache-lru-schedule": "@daily", **flags})
            self.assertIn("cache-lru-schedule", problem)
            self.assertIn("cache-max-size", problem)
        self.assertEqual(problems_of({"cache-lru-schedule": "@daily", "cache-max-size": "1G"}), ())
        self.assertEqual(problems_of({"cache-lru-schedule": ""}), ())

    def test_wrong_values_are_named(self) -> None:
        """Each error names the setting."""
        for flag, value in (
            ("cache-max-size", "ten"),
            ("cache-lru-schedule", "whenever"),
            ("cache-lru-schedule-timezone", "Middle/Earth"),
            ("cache-lru-low-mark", "0"),
            ("cache-lru-low-mark", "101"),
            ("cache-lru-grace", "soon"),
        ):
            [problem] = problems_of({"cache-max-size": "1G", flag: value})
            self.assertIn(f"--{flag}", problem)


class QuarantineTests(SynchronousTestCase):
    def test_it_is_bounded_by_default(self) -> None:
        """The defaults limit count, bytes and age."""
        found = load_with({}).cache.quarantine
        self.assertEqual(
            (found.max_count, found.max_size_bytes, found.max_age_s), (100, 2**30, 30 * 86400.0)
        )

    def test_each_bound_can_be_set(self) -> None:
        """Each limit accepts usual numbers, sizes and durations, and 0."""
        for count, size, age, expected in (
            ("7", "10M", "1h30m", (7, 10 * 2**20, 5400.0)),
            ("0", "0", "0", (0, 0, 0.0)),
        ):
            flags = {
                "cache-quarantine-max-count": count,
                "cache-quarantine-max-size": size,
                "cache-quarantine-max-age": age,
            }
            found = load_with(flags).cache.quarantine
            self.assertEqual((found.max_count, found.max_size_bytes, found.max_age_s), expected)

    def test_nonsense_is_refused(self) -> None:
        """The error names the setting; so does one for a count that is too large."""
        for flag, value in (
            ("cache-quarantine-max-count", "-1"),
            ("cache-quarantine-max-count", "100001"),
            ("cache-quarantine-max-size", "10"),
            ("cache-quarantine-max-age", "30d"),
        ):
            [problem] = problems_of({flag: value})
            self.assertIn(flag, problem)
