"""The failure policy, row by row."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ncps.ask.policy import MAX_ANSWER_TEXT, RETRY_AFTER_S, AllAway, kind_of, verdict
from ncps.errors import Busy, Corrupt, NcpsError, NotFound, Unavailable, Unusable


class VerdictTests(SynchronousTestCase):
    def verdict(self, *errors: NcpsError) -> NcpsError:
        return verdict({f"u{n}": error for n, error in enumerate(errors)}, "x.narinfo")

    def test_all_absent_is_not_found(self) -> None:
        """The client gets 404 only if each upstream surely does not have the thing."""
        error = self.verdict(NotFound("status 404"), NotFound("status 403"))
        self.assertIs(NotFound, type(error))
        self.assertIn("u1 (status 403)", str(error))

    def test_no_upstream_at_all_is_not_found(self) -> None:
        """A cache without upstreams has only its stored things."""
        error = self.verdict()
        self.assertEqual((NotFound, "no upstream has x.narinfo"), (type(error), str(error)))

    def test_one_unsure_answer_makes_it_unavailable(self) -> None:
        """One silent upstream may have the thing: never 404."""
        for others in ((), (NotFound("404"),), (Corrupt("html"),), (NotFound("404"), Corrupt("h"))):
            error = self.verdict(*others, Unavailable("refused"))
            assert isinstance(error, Unavailable)
            self.assertEqual((RETRY_AFTER_S, False), (error.retry_after, error.timed_out))

    def test_one_timeout_makes_it_a_timeout(self) -> None:
        """A passed deadline has a status of its own: 504."""
        error = self.verdict(Unavailable("refused"), Unavailable("late", timed_out=True))
        assert isinstance(error, Unavailable)
        self.assertTrue(error.timed_out)

    def test_retry_after_is_the_earliest_that_makes_sense(self) -> None:
        """The client comes back when the first upstream may answer, but not too soon."""
        for waits, expected in (((30.0, 9.0), 9.0), ((0.5,), RETRY_AFTER_S), ((None, 5.0), 5.0)):
            error = self.verdict(*[Unavailable("away", retry_after=wait) for wait in waits])
            assert isinstance(error, Unavailable)
            self.assertEqual(expected, error.retry_after)

    def test_bad_bytes_and_absence_are_corrupt(self) -> None:
        """If an upstream has a wrong version of the thing, that is an error and no absence."""
        self.assertIs(Corrupt, type(self.verdict(NotFound("404"), Corrupt("bad signature"))))

    def test_a_narinfo_without_a_voucher_is_absent_and_not_remembered(self) -> None:
        """A narinfo by an unknown key, or a web page, counts as none; wrong bytes are an error."""
        error = self.verdict(NotFound("404"), Unusable("signed by nobody"))
        assert isinstance(error, NotFound)
        self.assertFalse(error.is_certain)
        self.assertIs(Corrupt, type(self.verdict(Unusable("signed by nobody"), Corrupt("cut"))))

    def test_only_what_all_deny_for_sure_is_remembered(self) -> None:
        """A 404 of a cache in a ring with us is a denial, but is not remembered."""
        for errors, expected in (
            ((NotFound("404"), NotFound("404")), True),
            ((NotFound("404"), NotFound("ring", is_certain=False)), False),
        ):
            error = self.verdict(*errors)
            assert isinstance(error, NotFound)
            self.assertEqual(expected, error.is_certain)


class LeftOutTests(SynchronousTestCase):
    """Some upstreams have no say."""

    def verdict(self, left_out: str, *errors: NcpsError) -> NcpsError:
        return verdict({f"u{n}": error for n, error in enumerate(errors)}, "x", left_out.split())

    def test_the_others_say_is_the_answer(self) -> None:
        """An upstream that is left out makes no denial unsure, and no error worse."""
        absent, away = NotFound("404"), Unavailable("refused", timed_out=True)
        error = self.verdict("u1", absent, away)
        assert isinstance(error, NotFound)
        self.assertFalse(error.is_certain)
        self.assertIs(Corrupt, type(self.verdict("u1", Corrupt("cut"), away)))
        error = self.verdict("u1", Unavailable("well a moment ago"), away)
        assert isinstance(error, Unavailable)
        self.assertEqual((False, False), (error.timed_out, isinstance(error, AllAway)))

    def test_no_upstream_can_be_asked(self) -> None:
        """If all are away, the error has the error of each, and the time to come again."""
        error = self.verdict("u0 u1", Unavailable("status 401"), Unavailable("x", retry_after=9.0))
        assert isinstance(error, AllAway)
        self.assertEqual(RETRY_AFTER_S, self.retry_after("u0", Unavailable("x")))
        self.assertEqual(9.0, error.retry_after)
        self.assertEqual("no upstream could be asked: u0 (status 401), u1 (x)", error.told)

    def retry_after(self, left_out: str, *errors: NcpsError) -> float | None:
        error = self.verdict(left_out, *errors)
        assert isinstance(error, Unavailable)
        return error.retry_after

    def test_no_upstream_at_all_is_none_that_is_away(self) -> None:
        """A cache without upstreams can tell: only its stored things exist."""
        self.assertIs(NotFound, type(self.verdict("")))

    def test_answer_texts_are_plain_and_bounded(self) -> None:
        """An upstream's text cannot add a line to an answer, nor make it long."""
        error = self.verdict("", Unavailable("a\r\nX: y\x1b" + "z" * 5000))
        self.assertRegex(error.told, r"\A[ -~]+\Z")
        self.assertEqual(MAX_ANSWER_TEXT, len(error.told))


class KindTests(SynchronousTestCase):
    def test_failures_have_kinds(self) -> None:
        """An absence or a limit of ours is no failure; a late upstream fails."""
        for error, kind in (
            (NotFound("404"), ""),
            (Busy("our queue is full"), ""),
            (Busy("late", timed_out=True), "timeout"),
            (Unavailable("refused"), "connect"),
            (Unavailable("503", kind="status"), "status"),
            (Corrupt("html"), "corrupt"),
            (Unusable("no key", kind="malformed"), "malformed"),
        ):
            self.assertEqual(kind, kind_of(error), str(error))
