"""The table from errors to statuses."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ncps import errors
from ncps.ask.policy import verdict
from ncps.cache.answers import Absent, Outcome
from ncps.nix.narurl import UnknownExtension
from tests.unit.web.wire import Response, Server

DIGEST = "0" * 32


class StatusTests(SynchronousTestCase):
    def answer(self, error: Exception) -> Response:
        server = Server()
        server.cache.narinfos[DIGEST] = error
        return server.get(f"/{DIGEST}.narinfo")

    def test_every_error_has_its_status(self) -> None:
        """The status tells clients what they can do."""
        for error, status in (
            (errors.NotFound("m"), 404),
            (Absent("m", outcome=Outcome.MISS), 404),
            (errors.Unavailable("m"), 503),
            (errors.Unavailable("m", timed_out=True), 504),
            (errors.Corrupt("m"), 502),
            (errors.Unusable("m"), 404),
            (errors.Malformed("m"), 400),
            (UnknownExtension("m"), 400),
            (errors.Refused("m"), 403),
            (errors.Conflict("m"), 409),
            (errors.StorageFull("m"), 507),
        ):
            response = self.answer(error)
            self.assertEqual((response.status, response.whole), (status, True), error)
            self.assertEqual(response.headers["content-type"], "text/plain; charset=utf-8")
            self.assertEqual(response.headers["cache-control"], "no-store")
            self.assertLess(len(response.body), 80)

    def test_every_error_class_is_in_table(self) -> None:
        """No error class of ours gives 500."""
        kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
        for kind in kinds:
            if kind is not errors.NcpsError and issubclass(kind, errors.NcpsError):
                self.assertNotEqual(self.answer(kind("m")).status, 500, kind)

    def test_plain_base_error_is_500(self) -> None:
        """An error without a class is a bug, and is logged."""
        self.assertEqual(self.answer(errors.NcpsError("m")).status, 500)
        self.assertEqual(len(self.flushLoggedErrors(errors.NcpsError)), 1)

    def test_retry_after_is_whole_seconds_within_bounds(self) -> None:
        """Nix obeys any Retry-After, so ncps limits it."""
        for wanted, told in ((None, "5"), (0.2, "1"), (2.1, "3"), (30, "30"), (86400, "60")):
            response = self.answer(errors.Unavailable("m", retry_after=wanted))
            self.assertEqual(response.headers["retry-after"], told)
        self.assertEqual(self.answer(errors.Corrupt("m")).headers["retry-after"], "5")
        self.assertNotIn("retry-after", self.answer(errors.NotFound("m")).headers)

    def test_answers_of_upstreams_are_in_the_text(self) -> None:
        """The answer names the upstreams that failed, on one line."""
        failures = {"cache.example.org": errors.Unavailable("status 401")}
        for left_out, status, text in (
            (
                ["cache.example.org"],
                503,
                "no upstream could be asked: cache.example.org (status 401)",
            ),
            ([], 503, "could not tell whether there is x: cache.example.org (status 401)"),
        ):
            response = self.answer(verdict(failures, "x", left_out))
            told = f"not available now: {text}\n".encode()
            self.assertEqual((status, told), (response.status, response.body))
        wrong = {"cache.example.org": errors.Corrupt("an odd hash")}
        body = self.answer(verdict(wrong, "x")).body
        self.assertIn(b"no upstream has a good x: cache.example.org (an odd hash)", body)

    def test_error_text_is_not_shown(self) -> None:
        """The text of an internal error is not sent."""
        for kind in (errors.Unavailable, errors.Corrupt, errors.Malformed, errors.NotFound):
            self.assertNotIn(b"10.0.0.1", self.answer(kind("10.0.0.1 refused")).body)
