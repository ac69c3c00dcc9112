"""Tests of the settings of uploads."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.settings.around import load_with, problems_of

KEY = "builder-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="


class UploadSettingsTests(SynchronousTestCase):
    def test_a_required_signature_needs_a_key(self) -> None:
        """Without a key the start fails with the name of the missing setting."""
        (problem,) = problems_of({"cache-require-trusted-signature": "true"})
        self.assertIn("cache-trusted-upload-key", problem)
        found = load_with(
            {"cache-require-trusted-signature": "true", "cache-trusted-upload-key": KEY}
        )
        self.assertEqual((KEY,), found.cache.trusted_upload_keys)

    def test_a_wrong_key_is_named(self) -> None:
        """An invalid key is an error at the start."""
        (problem,) = problems_of({"cache-trusted-upload-key": "builder-1"})
        self.assertIn("cache-trusted-upload-key", problem)
