"""Tests of the settings of reads."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.settings.around import load_with, problems_of


class AccessSettingsTests(SynchronousTestCase):
    def test_closed_metrics_need_closed_reads(self) -> None:
        """With open reads, everybody could read the metrics in spite of the setting."""
        (problem,) = problems_of({"auth-metrics": "token"})
        self.assertIn("auth-metrics has no effect", problem)
        for closing in ({"auth-reads": "token"}, {"cache-get-token": "hush"}):
            self.assertEqual("token", load_with({"auth-metrics": "token", **closing}).auth.metrics)

    def test_an_empty_file_closes_nothing_and_is_refused(self) -> None:
        """An empty secret must not open reads to everybody."""
        path = Path(self.mktemp())
        for text in ("", "\n", " \r\n"):
            path.write_text(text)
            (problem,) = problems_of({"cache-get-token-file": str(path)})
            self.assertIn("is empty", problem)
        path.write_text("hush\n")
        self.assertEqual("hush", load_with({"cache-get-token-file": str(path)}).cache.get_token)
