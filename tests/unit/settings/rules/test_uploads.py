"""Tests of the settings of uploads."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.settings.around import load_with, problems_of

KEY = "builder-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="


class UploadSettingsTests(SynchronousTestCase):
    def test_a_required_signature_needs_a_key(self) -> None:
        """The start fails, and names the setting that is missing; with a key it succeeds."""
        (problem,) = problems_of({"cache-require-trusted-signature": "true"})
        self.assertIn("cache-trusted-upload-key", problem)
        found = load_with(
            {"cache-require-trusted-signature": "true", "cache-trusted-upload-key": KEY}
        )
        self.assertEqual((KEY,), found.cache.trusted_upload_keys)

    def test_a_wrong_key_is_named(self) -> None:
        """A key that is none is refused at the start."""
        (problem,) = problems_of({"cache-trusted-upload-key": "builder-1"})
        self.assertIn("cache-trusted-upload-key", problem)
