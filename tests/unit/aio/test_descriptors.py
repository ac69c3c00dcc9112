"""Limits of descriptors, and the connections that they allow."""

from __future__ import annotations

import resource

from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.descriptors import LEAST, MOST, fitting, raise_limit

NO_LIMIT = resource.RLIM_INFINITY


class RaiseTests(SynchronousTestCase):
    def raised(self, soft: int, hard: int) -> tuple[int, tuple[int, int]]:
        """Raise artificial limits; return the result, and the limits afterwards."""
        limits = [(soft, hard)]
        found = raise_limit(lambda _: limits[-1], lambda _, both: limits.append(both))
        return found, limits[-1]

    def test_the_soft_limit_becomes_the_hard_one(self) -> None:
        """The soft limit is raised to the hard limit, but not beyond `MOST`."""
        self.assertEqual((524288, (524288, 524288)), self.raised(1024, 524288))
        self.assertEqual((MOST, (MOST, NO_LIMIT)), self.raised(1024, NO_LIMIT))
        self.assertEqual((MOST, (MOST, 10 * MOST)), self.raised(1024, 10 * MOST))

    def test_a_sufficient_limit_stays(self) -> None:
        """A limit is never lowered."""
        self.assertEqual((4096, (4096, 4096)), self.raised(4096, 4096))
        self.assertEqual((2 * MOST, (2 * MOST, NO_LIMIT)), self.raised(2 * MOST, NO_LIMIT))
        self.assertEqual((MOST, (NO_LIMIT, NO_LIMIT)), self.raised(NO_LIMIT, NO_LIMIT))

    def test_a_limit_that_cannot_be_raised_stays(self) -> None:
        """A sandbox that forbids the change does not stop the program."""

        def refuse(_: int, both: tuple[int, int]) -> None:
            raise PermissionError(both)

        self.assertEqual(1024, raise_limit(lambda _: (1024, 4096), refuse))


class FittingTests(SynchronousTestCase):
    def test_the_defaults_fit(self) -> None:
        """The defaults fit beneath the usual hard limit."""
        found = fitting(524288, connections=10000, requests=5000, others=100)
        self.assertEqual(10000, found)

    def test_others_come_first(self) -> None:
        """All descriptors that may be needed at the same time fit below the limit."""
        for limit in (600, 1024, 4096, 20000):
            for requests in (10, 5000):
                found = fitting(limit, connections=100000, requests=requests, others=200)
                used = 128 + 200 + found + 2 * min(found, requests)
                self.assertLessEqual(used, limit)
                self.assertGreater(used, limit - 4)

    def test_a_few_are_always_let_in(self) -> None:
        """With a limit that is much too low the server still accepts a few clients."""
        self.assertEqual(LEAST, fitting(64, connections=10000, requests=5000, others=200))
        self.assertEqual(3, fitting(64, connections=3, requests=5000, others=200))
