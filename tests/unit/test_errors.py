"""Tests of the errors."""

from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Malformed, Unavailable


class ErrorTests(SynchronousTestCase):
    def test_unavailable_says_when_to_come_back(self) -> None:
        """The error has the values for Retry-After and for 504."""
        error = Unavailable("upstream is slow", retry_after=5.0, timed_out=True)
        self.assertEqual((error.retry_after, error.timed_out), (5.0, True))
        self.assertEqual(str(error), "upstream is slow")
        plain = Unavailable("database is locked")
        self.assertEqual((plain.retry_after, plain.timed_out), (None, False))

    def test_malformed_is_a_value_error(self) -> None:
        """Libraries that call a parser to convert settings expect this class."""
        self.assertTrue(issubclass(Malformed, ValueError))
