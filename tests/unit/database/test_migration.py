"""Tests of the steps that lie in `schema/`."""

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
        """Databases keep their checksums, and would be refused."""
        for name, expected in CHECKSUMS.items():
            text = " ".join(step.checksum for step in unreleased(name))
            self.assertEqual(expected, sha256(text.encode()).hexdigest()[:16], name)

    def test_a_younger_dialect_has_no_unreleased_steps(self) -> None:
        """It has no directory for them."""
        self.assertEqual((), unreleased("younger"))

    def test_comments_are_no_statements(self) -> None:
        """Neither between statements nor inside of them."""
        for name in DIALECTS:
            for step in (*known(name), *unreleased(name)):
                self.assertNotIn("--", " ".join(step.statements))
