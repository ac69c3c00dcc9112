"""Settings that are passed to another process."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ncps.settings.carried import pack, unpack
from tests.unit.settings.around import load_with


class CarriedTests(SynchronousTestCase):
    def test_every_value_survives(self) -> None:
        """The other process gets all values and their sources."""
        for flags in (
            {},
            {"cache-database-url": "postgresql://u:secret@h/d?sslmode=require"},
            {"cache-upstream-url": "https://u:p@a.example?priority=3", "workers": "3"},
        ):
            settings = load_with(flags)
            found = unpack(pack(settings))
            self.assertEqual(settings, found)
            self.assertEqual(dict(settings.origins), dict(found.origins))
