"""The reasons that explain a further transfer of a file."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.chaos.audit import explains


class DamageTests(SynchronousTestCase):
    """Damages to stored bytes."""

    def test_each_name_explains_one_transfer(self) -> None:
        """A file that is stored under two names, and damaged under both, is fetched twice."""
        damages = [(1.0, "first"), (2.0, "second")]
        said = [explains(damages, after) for after in (3.0, 9.0, 10.0)]
        self.assertEqual([True, True, False], said)

    def test_damages_to_one_file_explain_one_transfer(self) -> None:
        """They are found together."""
        damages = [(1.0, "first"), (2.0, "first"), (4.0, "first")]
        said = [explains(damages, after) for after in (3.0, 3.5, 5.0, 6.0)]
        self.assertEqual([True, False, True, False], said)

    def test_later_damage_explains_nothing(self) -> None:
        """A transfer needs a damage before it."""
        damages = [(4.0, "first")]
        self.assertFalse(explains(damages, 3.0))
        self.assertEqual([(4.0, "first")], damages)
