"""The failure policy, row by row."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ncps.cache.policy import RETRY_AFTER_S, verdict
from ncps.errors import Corrupt, NcpsError, NotFound, Unavailable


class VerdictTests(SynchronousTestCase):
    def verdict(self, *errors: NcpsError) -> NcpsError:
        return verdict({f"u{n}": error for n, error in enumerate(errors)}, "x.narinfo")

    def test_all_absent_is_not_found(self) -> None:
        """Only where every upstream surely has it not, the client is told 404."""
        error = self.verdict(NotFound("status 404"), NotFound("status 403"))
        self.assertIs(NotFound, type(error))
        self.assertIn("u1: status 403", str(error))

    def test_no_upstream_at_all_is_not_found(self) -> None:
        """A cache without upstreams has what it has."""
        error = self.verdict()
        self.assertEqual((NotFound, "no upstream has x.narinfo"), (type(error), str(error)))

    def test_one_that_could_not_tell_makes_it_unavailable(self) -> None:
        """One silent upstream may have it: never 404."""
        for others in ((), (NotFound("404"),), (Corrupt("html"),), (NotFound("404"), Corrupt("h"))):
            error = self.verdict(*others, Unavailable("refused"))
            assert isinstance(error, Unavailable)
            self.assertEqual((RETRY_AFTER_S, False), (error.retry_after, error.timed_out))

    def test_one_timeout_makes_it_a_timeout(self) -> None:
        """A deadline that ran out is told apart: 504."""
        error = self.verdict(Unavailable("refused"), Unavailable("late", timed_out=True))
        assert isinstance(error, Unavailable)
        self.assertTrue(error.timed_out)

    def test_retry_after_is_the_earliest_that_makes_sense(self) -> None:
        """The client comes back when the first upstream might answer, but not in a hurry."""
        for waits, expected in (((30.0, 9.0), 9.0), ((0.5,), RETRY_AFTER_S), ((None, 5.0), 5.0)):
            error = self.verdict(*[Unavailable("away", retry_after=wait) for wait in waits])
            assert isinstance(error, Unavailable)
            self.assertEqual(expected, error.retry_after)

    def test_bad_bytes_and_absence_are_corrupt(self) -> None:
        """Where somebody has it, but wrong, that is an error and no absence."""
        self.assertIs(Corrupt, type(self.verdict(NotFound("404"), Corrupt("bad signature"))))
