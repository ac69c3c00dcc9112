"""Ratio: the limit of decompressed bytes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ncps.codec.ratio import ALLOWANCE, Ratio, most
from ncps.errors import Corrupt


class RatioTests(SynchronousTestCase):
    def test_little_input_has_an_allowance(self) -> None:
        """Zeros at the beginning are no bomb."""
        ratio = Ratio(10)
        ratio.took(1)
        ratio.gave(ALLOWANCE)
        self.assertRaises(Corrupt, ratio.gave, 1)

    def test_more_input_may_become_more(self) -> None:
        """Beyond the allowance the ratio of all bytes so far counts."""
        reached: list[None] = []
        ratio = Ratio(10, lambda: reached.append(None))
        ratio.took(ALLOWANCE)
        ratio.gave(ALLOWANCE * 10)
        self.assertEqual(reached, [])
        self.assertRaises(Corrupt, ratio.gave, 1)
        self.assertEqual(len(reached), 1)

    def test_most_is_known_beforehand(self) -> None:
        """If the size of the input is known, the limit is known as well."""
        self.assertEqual(most(1, 1000), ALLOWANCE)
        self.assertEqual(most(ALLOWANCE, 1000), ALLOWANCE * 1000)
