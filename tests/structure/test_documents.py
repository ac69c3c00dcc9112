"""What documents name is there."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

DOCS = Path(__file__).parents[2] / "docs"
ABBREVIATIONS = {"N.": "unit.cache.test_names.", "V.": "unit.cache.test_verify."}


def names_in(text: str) -> set[str]:
    """Tests that a page on trust names in full, abbreviations written out."""
    found = set()
    for name in re.findall(
        r"`((?:unit|contract|system|integration|cluster|e2e|N|V)\.[\w.]+)`", text
    ):
        for short, long in ABBREVIATIONS.items():
            if name.startswith(short):
                name = long + name.removeprefix(short)
        found.add(f"tests.{name}")
    return found


def exists(name: str) -> bool:
    """Whether a module, a class or a method has this dotted name."""
    parts = name.split(".")
    for length in range(len(parts), 1, -1):
        try:
            found: object = import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part, None)
        return found is not None
    return False


class DocumentTests(SynchronousTestCase):
    def test_every_test_that_vouches_is_there(self) -> None:
        """The page that says who vouches for what names tests that exist."""
        names = names_in((DOCS / "trust.md").read_text())
        self.assertGreater(len(names), 20)
        self.assertEqual([], sorted(name for name in names if not exists(name)))

    def test_a_test_that_is_not_there_is_noticed(self) -> None:
        """Modules, classes and methods are told apart from those that were renamed."""
        self.assertTrue(exists("tests.unit.cache.test_names.OwnKeyTests"))
        self.assertFalse(exists("tests.unit.cache.test_names.OtherKeyTests"))
        self.assertFalse(exists("tests.unit.cache.test_nothing"))
