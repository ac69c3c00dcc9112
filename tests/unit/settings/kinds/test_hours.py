"""Hours of the day."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ncps.settings.kinds.hours import HOURS, Hours


class HoursTests(SynchronousTestCase):
    def within(self, text: str) -> list[int]:
        hours = HOURS.parse(text)
        assert isinstance(hours, Hours)
        return [hour for hour in range(24) if hours.has(hour)]

    def test_spans(self) -> None:
        """A span includes its first hour and excludes its end, also over midnight."""
        self.assertEqual([1, 2], self.within("1-3"))
        self.assertEqual([0, 1, 22, 23], self.within("22-2"))
        self.assertEqual([22, 23], self.within("22-24"))
        self.assertEqual([0], self.within("24-1"))

    def test_all_hours(self) -> None:
        """An empty text, and a span that ends where it begins, mean all hours."""
        for text in ("", "0-24", "7-7"):
            self.assertEqual(list(range(24)), self.within(text), text)

    def test_invalid_spans(self) -> None:
        """Other texts are refused."""
        for text in ("22", "22-25", "a-b", "-1-2", "22 - 6", "1-2-3"):
            self.assertRaises(ValueError, HOURS.parse, text)

    def test_shown(self) -> None:
        """A span is shown as it was given."""
        assert HOURS.show is not None
        for text in ("22-6", ""):
            self.assertEqual(text, HOURS.show(HOURS.parse(text)))
