"""The steps in `schema/`."""

from __future__ import annotations

from hashlib import sha256

from twisted.trial.unittest import SynchronousTestCase

from ncps.database.migration import known, unreleased

DIALECTS = ("sqlite", "postgresql", "mysql")
CHECKSUMS = {
    "sqlite": "8f329e016a51ca93",
    "postgresql": "22f35eafade4a046",
    "mysql": "ed3905cab4930491",
}
"""First characters of the SHA-256 of the checksums of the unreleased steps, joined by spaces."""


class MigrationTests(SynchronousTestCase):
    def test_numbers_have_no_holes(self) -> None:
        """The steps of each dialect have the numbers 1, 2, 3 and so on, and the same names."""
        steps = [[(step.version, step.name) for step in known(name)] for name in DIALECTS]
        self.assertEqual([steps[0]] * len(DIALECTS), steps)
        self.assertEqual(list(range(1, len(steps[0]) + 1)), [version for version, _ in steps[0]])

    def test_unreleased_steps_never_change(self) -> None:
        """The checksums of unreleased steps stay, because databases contain them."""
        for name, expected in CHECKSUMS.items():
            text = " ".join(step.checksum for step in unreleased(name))
            self.assertEqual(expected, sha256(text.encode()).hexdigest()[:16], name)

    def test_a_younger_dialect_has_no_unreleased_steps(self) -> None:
        """A newer dialect has no directory of unreleased steps."""
        self.assertEqual((), unreleased("younger"))

    def test_comments_are_no_statements(self) -> None:
        """Comments between statements and inside them are ignored."""
        for name in DIALECTS:
            for step in (*known(name), *unreleased(name)):
                self.assertNotIn("--", " ".join(step.statements))
