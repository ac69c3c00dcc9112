"""References: different paths, signed in Nix's order, and cheap if there are many."""

from __future__ import annotations

import random
from collections.abc import Iterable
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from ncps.nix import references
from ncps.nix.base32 import ALPHABET
from ncps.nix.references import LONG, References, in_order
from ncps.nix.storepath import StorePath


def paths(count: int, seed: int = 1) -> list[StorePath]:
    """Make paths; some have hash parts or names with the same beginning."""
    chance = random.Random(seed)
    names = ("a", "a-b", "a.b", "a+b", "A", "a_", "a?", "a=")
    digests = ["".join(chance.choices(ALPHABET, k=32)) for _ in range(count // 2 + 1)]
    return [StorePath(chance.choice(digests), chance.choice(names)) for _ in range(count)]


class ReferencesTests(SynchronousTestCase):
    def test_texts_are_sorted_as_paths_are(self) -> None:
        """The order of texts is that of hash parts, then of names."""
        found = References.of(paths(500))
        self.assertEqual([str(path) for path in sorted(found)], list(found.texts))

    def test_each_path_is_there_once_in_the_order_it_came(self) -> None:
        """Repeated paths are removed, and the order stays."""
        one, two, three = [StorePath(letter * 32, "x") for letter in "zab"]
        found = References.of([two, one, two, three, one])
        self.assertEqual((two, one, three), found)
        self.assertEqual(f"{two.base} {one.base} {three.base}", found.bases)

    def test_made_of_themselves_they_are_the_same(self) -> None:
        """References of References are the same object, which keeps its computed texts."""
        found = References.of(paths(10))
        self.assertIs(found, References.of(found))

    def test_objects_are_not_compared(self) -> None:
        """Texts are sorted instead of objects, which would take ten seconds."""
        with mock.patch.object(StorePath, "__lt__", side_effect=AssertionError("compared")):
            self.assertTrue(References.of(paths(20)).joined)

    def test_many_are_worked_out_when_they_are_made(self) -> None:
        """Many are computed in the constructor, in a thread; few when they are needed."""
        many = References.of([StorePath(f"{n:032d}", "x") for n in range(LONG + 1)])
        with mock.patch.object(references, "in_order", side_effect=AssertionError("too late")):
            self.assertEqual(LONG + 1, len(many.joined.split(",")))
        self.assertFalse(References.of(many[:LONG]).is_long)

    def test_no_object_is_made_for_each_path(self) -> None:
        """Objects for all paths would slow each garbage collection."""
        some = paths(20)
        text = " ".join(path.base for path in some)
        with mock.patch.object(StorePath, "__init__", side_effect=AssertionError("made")):
            found = References.parse(text, 100)
            self.assertTrue(found.joined)
        self.assertEqual(tuple(dict.fromkeys(some)), found)
        self.assertEqual(References.of(some), found)

    def test_membership(self) -> None:
        """Membership compares whole base names; removal keeps the others."""
        one, longer, other = [StorePath("0" * 32, name) for name in ("a", "a-b", "c")]
        found = References.of([longer, other])
        self.assertNotIn(one, found)
        self.assertIn(longer, found)
        self.assertEqual((other,), found.without(longer))
        self.assertIs(found, found.without(one))
        self.assertEqual((), References())
        self.assertEqual([], list(References()))

    def test_sorting_in_steps_sorts(self) -> None:
        """Sorting in steps gives the same result as `sorted`, for any texts."""
        texts = [f"{random.Random(n).random()}" for n in range(10_000)]
        for some in (texts, texts[:4096], texts[:4097], texts[:1], []):
            self.assertEqual(sorted(some), in_order(some))

    def test_no_step_is_long(self) -> None:
        """One sort, during which no thread runs, has at most 8,000 of 100,000 texts."""
        steps: list[list[str]] = []

        def watched(texts: Iterable[str]) -> list[str]:
            steps.append(sorted(texts))
            return steps[-1]

        chance = random.Random(1)
        texts = [f"{'0' * 32}-{n:06}" for n in range(100_000)]  # alike up to their ends
        for some in (chance.sample(texts, len(texts)), texts, texts[::-1]):
            steps.clear()
            with mock.patch.object(references, "sorted", watched, create=True):
                self.assertEqual(texts, in_order(some))
            self.assertLess(max(map(len, steps)), 8000)
            last: list[str] = []
            while len(last) < len(texts):
                last = steps.pop() + last
            self.assertTrue(texts == last, "something was sorted after these steps")
