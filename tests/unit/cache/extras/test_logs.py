"""Logs: fetched, kept, uploaded, and bounded."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from ncps.cache.answers import Absent, Outcome
from ncps.codec import encoder
from ncps.errors import (
    Conflict,
    Corrupt,
    Malformed,
    NotFound,
    StorageFull,
    TooLarge,
    Unavailable,
    UnknownEncoding,
)
from ncps.peering import trail
from ncps.peering.trail import Trail
from ncps.ports import ExtraKey
from tests.contract.samples import digest_of
from tests.unit.cache.extras.rig import ExtrasCase

DRV = f"{digest_of(1)}-a+b=c?d.drv"
PATH = f"log/{digest_of(1)}-a+b=c%3Fd.drv"
TEXT = b"building\n\x1b[31mred\x1b[0m\n"


class FetchedLogTests(ExtrasCase):
    def test_log_is_fetched_once_and_kept(self) -> None:
        """The log of an upstream is kept: the second client gets it from the store."""
        self.mirror.texts[PATH] = TEXT
        self.assertEqual((TEXT, "miss"), self.get(self.read(self.extras.log(DRV))))
        self.assertEqual((TEXT, "hit"), self.get(self.read(self.extras.log(DRV))))
        self.assertEqual([(PATH, 0)], self.mirror.asked("text"))
        self.assertEqual({ExtraKey("log", DRV): TEXT}, self.kept.objects)

    def test_clients_of_one_moment_share_a_request(self) -> None:
        """Each upstream is asked once for all clients that want the same log at the same time."""
        self.origin.texts[PATH] = TEXT
        self.origin.is_silent = True
        self.mirror.is_silent = True
        first = self.start(self.read(self.extras.log(DRV)))
        second = self.start(self.read(self.extras.log(DRV)))
        self.assertEqual(1, len(self.origin.asked("text")))
        self.origin.release()
        self.assertEqual((TEXT, "miss"), self.successResultOf(first))
        self.assertEqual((TEXT, "coalesced"), self.successResultOf(second))

    def test_absence_is_remembered_and_an_upload_ends_it(self) -> None:
        """No upstream has it: 404, with no question for a while; an upload ends that."""
        self.assertIs(Outcome.MISS, self.refused(self.extras.log(DRV), Absent).outcome)
        self.assertIs(Outcome.NEGATIVE, self.refused(self.extras.log(DRV), Absent).outcome)
        self.assertEqual(1, len(self.origin.asked("text")))
        self.assertTrue(self.get(self.extras.add_log(DRV, TEXT)))
        self.assertEqual((TEXT, "hit"), self.get(self.read(self.extras.log(DRV))))

    def test_upstreams_that_fail_say_nothing(self) -> None:
        """If no upstream can tell, the log is not absent, and is asked for again."""
        self.origin.texts[PATH] = Unavailable("status 500")
        self.refused(self.extras.log(DRV), Unavailable)
        self.origin.texts[PATH] = TEXT
        self.assertEqual((TEXT, "miss"), self.get(self.read(self.extras.log(DRV))))

    def test_large_log_is_not_taken(self) -> None:
        """For a log above the limit, the upstream counts as without it; the limit is counted."""
        self.origin.texts[PATH] = b"x" * 100_001
        self.refused(self.extras.log(DRV), Corrupt)
        self.assertEqual(1, self.reached["cache-extra-max-object-size"])
        self.mirror.texts[PATH] = b"x" * 100_000
        self.assertEqual("miss", self.get(self.read(self.extras.log(DRV)))[1])

    def test_log_that_cannot_be_kept_is_served(self) -> None:
        """On a full disk the log is fetched a second time, but served the first time."""
        self.kept.full = StorageFull("no room")
        self.origin.texts[PATH] = TEXT
        for _ in range(2):
            self.assertEqual((TEXT, "miss"), self.get(self.read(self.extras.log(DRV))))
        self.assertEqual({}, self.kept.objects)

    def test_store_that_is_away_is_no_absence(self) -> None:
        """If the store cannot tell whether it has the log, the answer is Unavailable."""
        self.kept.failing = Unavailable("disk")
        self.refused(self.extras.log(DRV), Unavailable)
        self.assertEqual([], self.origin.asked("text"))

    def test_no_upstream_is_asked_for_an_upload(self) -> None:
        """Below /upload a client learns whether this cache itself has the log."""
        self.origin.texts[PATH] = TEXT
        self.refused(self.extras.log(DRV, is_local=True), NotFound)
        self.assertEqual([], self.origin.asked("text"))

    def test_question_of_this_cache_itself_asks_no_upstream(self) -> None:
        """In a ring of caches the question ends here."""
        with trail.following(Trail(("here",), has_come_round=True)):
            self.assertIs(Outcome.RING, self.refused(self.extras.log(DRV), Absent).outcome)
        self.assertEqual([], self.origin.asked("text"))

    def test_names_that_are_no_derivations_are_malformed(self) -> None:
        """No upstream is asked for an impossible name."""
        for name in ("", "x.drv", DRV[:-4], f"{digest_of(1)}-../x.drv", DRV + "/"):
            self.refused(self.extras.log(name), Malformed)
            self.refused(self.extras.add_log(name, b""), Malformed)
        self.assertEqual([], self.origin.log)


class UploadedLogTests(ExtrasCase):
    def test_empty_log_makes_way(self) -> None:
        """After a request without a body, a client can still upload the log."""
        self.assertTrue(self.get(self.extras.add_log(DRV, b"")))
        self.assertFalse(self.get(self.extras.add_log(DRV, b"")))
        self.assertTrue(self.get(self.extras.add_log(DRV, TEXT)))
        self.assertEqual((TEXT, "hit"), self.get(self.read(self.extras.log(DRV))))

    def test_first_log_stays(self) -> None:
        """The same bytes are accepted again; other bytes are a conflict."""
        self.assertTrue(self.get(self.extras.add_log(DRV, TEXT)))
        self.assertFalse(self.get(self.extras.add_log(DRV, TEXT)))
        self.refused(self.extras.add_log(DRV, TEXT + b"more"), Conflict)
        self.refused(self.extras.add_log(DRV, b""), Conflict)
        self.assertEqual((TEXT, "hit"), self.get(self.read(self.extras.log(DRV))))

    def test_uploaded_log_goes_before_a_fetched_one(self) -> None:
        """An upload is no conflict with a log that an upstream had."""
        self.origin.texts[PATH] = b"of an upstream"
        self.get(self.read(self.extras.log(DRV)))
        self.assertTrue(self.get(self.extras.add_log(DRV, TEXT)))
        self.assertEqual((TEXT, "hit"), self.get(self.read(self.extras.log(DRV))))

    def test_encoded_log_is_kept_as_text(self) -> None:
        """A Content-Encoding is decoded; an unknown or a broken one is refused."""
        for number, name in enumerate(("br", "xz", "zstd", "gzip", "x-gzip", "bzip2", "identity")):
            drv = f"{digest_of(number)}-x.drv"
            data = TEXT
            if name != "identity":
                maker = encoder(name.removeprefix("x-"))
                data = maker.feed(TEXT) + maker.finish()
                self.refused(self.extras.add_log(drv, data[:-1], name), Malformed)
            self.assertTrue(self.get(self.extras.add_log(drv, data, name.upper())))
            self.assertEqual(TEXT, self.get(self.read(self.extras.log(drv)))[0])
        self.refused(self.extras.add_log(DRV, TEXT, "sdch"), UnknownEncoding)

    def test_bomb_is_refused(self) -> None:
        """A few bytes that decode to more than the limit are refused before the end."""
        maker = encoder("zstd")
        bomb = maker.feed(bytes(50_000_000)) + maker.finish()
        self.refused(self.extras.add_log(DRV, bomb, "zstd"), TooLarge)
        self.assertEqual({}, self.kept.objects)

    def test_uploads_have_a_limit(self) -> None:
        """Uploaded logs are never removed, so further ones are refused at the limit."""
        for number in range(3):
            self.get(self.extras.add_log(f"{digest_of(number)}-x.drv", b"x" * 100_000))
        self.refused(self.extras.add_log(DRV, b"x"), StorageFull)
        self.assertEqual(1, self.reached["cache-extra-max-uploaded-size"])
        self.restart()
        self.get(self.extras.kept.check())
        self.refused(self.extras.add_log(DRV, b"x"), StorageFull)
        self.assertFalse(self.get(self.extras.add_log(f"{digest_of(0)}-x.drv", b"x" * 100_000)))

    def test_two_uploads_at_once_are_one(self) -> None:
        """If two replicas get two logs of one name at the same time, one log is kept."""
        lease = self.get(self.leases.take(f"extra:log:{DRV}"))
        uploads = [self.start(self.extras.add_log(DRV, text)) for text in (b"one", b"two")]
        self.assertNoResult(uploads[0])
        self.get(lease.release())
        self.assertTrue(self.successResultOf(uploads[0]))
        self.failureResultOf(uploads[1], Conflict)


class BoundTests(ExtrasCase):
    def fetch(self, numbers: range) -> list[str]:
        names = [f"{digest_of(number)}-x.drv" for number in numbers]
        for name in names:
            self.origin.texts[f"log/{name}"] = name.encode() * 2000
            self.get(self.read(self.extras.log(name)))
            self.clock.advance(61)
        return names

    def test_oldest_fetched_extras_go_first(self) -> None:
        """Beyond the limit the oldest are removed, down to four fifths; uploaded ones stay."""
        self.get(self.extras.add_log(DRV, TEXT))
        names = self.fetch(range(20))
        self.assertLess(sum(map(len, self.kept.objects.values())), 1_000_000 + 2 * len(TEXT))
        left = [key.name for key in self.kept.objects if not key.is_uploaded]
        self.assertEqual(names[-len(left) :], left)
        self.assertIn(ExtraKey("log", DRV, True), self.kept.objects)

    def test_one_process_removes(self) -> None:
        """While another process removes extras, this one removes none."""
        lease = self.get(self.leases.take("extras"))
        names = self.fetch(range(20))
        self.assertEqual(20, len(self.kept.objects))
        self.get(lease.release())
        self.get(self.extras.kept.check())
        self.assertLess(len(self.kept.objects), len(names))

    def test_count_fails_softly(self) -> None:
        """If the store is away, the count comes later."""
        self.kept.failing = Unavailable("disk")
        self.get(self.extras.kept.check())


class AwayTests(ExtrasCase):
    def test_without_any_upstream_the_log_is_absent(self) -> None:
        """If all upstreams have been away for long, the setting says 404."""
        for upstream in self.scripted:
            upstream.is_away = True
        ask: Callable[[], Deferred[object]] = lambda: self.start(self.extras.log(DRV))  # noqa: E731
        for _ in range(4):
            ask().addErrback(lambda failure: failure.trap(Unavailable, NotFound))
            self.clock.advance(1)
        self.assertIs(Outcome.AWAY, self.refused(self.extras.log(DRV), Absent).outcome)
