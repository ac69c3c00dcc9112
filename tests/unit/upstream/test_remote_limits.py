"""RemoteCache and its limits: sizes, places, waits."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from ncps.codec import encoder
from ncps.errors import Busy, Corrupt, NotFound, Unavailable
from ncps.peering import trail
from ncps.peering.trail import Trail
from ncps.upstream.remote import QUERY_S
from tests.unit.upstream.rig import RemoteCase


class LimitTests(RemoteCase):
    def test_endless_narinfo_is_cut(self) -> None:
        """A narinfo of ten megabytes is not read to its end, also if it decodes to that."""
        name = f"{self.sample.digest}.narinfo"
        self.http.files[name] = b"x" * 10_000_000
        self.refused(self.upstream.narinfo(self.sample.digest), Corrupt)
        maker = encoder("zstd")
        self.http.files[name] = maker.feed(b"x" * 100_000_000) + maker.finish()
        self.http.headers = {"content_encoding": "zstd"}
        self.refused(self.upstream.narinfo(self.sample.digest), Corrupt)

    def test_size_of_a_narinfo_is_a_setting(self) -> None:
        """An operator may accept smaller narinfos only."""
        size = len(self.sample.narinfo.render())
        self.bounded(narinfo_size=size)
        self.assertEqual(self.sample.narinfo, self.get(self.upstream.narinfo(self.sample.digest)))
        self.bounded(narinfo_size=size - 1)
        self.refused(self.upstream.narinfo(self.sample.digest), Corrupt)
        self.assertEqual({"cache-narinfo-max-size": 1}, self.http.reached)

    def test_bomb_on_the_wire_is_broken_off(self) -> None:
        """An encoding that was not asked for must not turn a few bytes into many."""
        maker = encoder("zstd")
        bomb = b"".join(maker.feed(bytes(1024 * 1024)) for _ in range(70)) + maker.finish()
        self.http.files[self.sample.url] = bomb
        self.http.headers = {"content_encoding": "zstd"}
        self.refused(self.read(self.get(self.open())), Corrupt)
        self.assertEqual({"cache-max-decompression-ratio": 1}, self.http.reached)
        asked_for = self.get(self.read(self.get(self.open(allow_encoding=True))))
        self.assertEqual(70 * 1024 * 1024, len(asked_for))  # the core knows its size

    def test_full_queue_is_told_at_once(self) -> None:
        """No more than `max_queue` requests wait, for NARs and for small things each."""
        self.bounded(max_connections=1, max_queries=1, max_queue=1)
        held = self.get(self.open())
        for make, name in ((self.open, "NAR"), (self.upstream.cache_info, "query")):
            waiting = [Deferred.fromCoroutine(make()) for _ in range(3)]
            refused = [d for d in waiting if isinstance(getattr(d, "result", None), Failure)]
            self.assertEqual(1 if name == "query" else 2, len(refused), name)
            for asking in refused:
                self.assertIn(name, str(self.failureResultOf(asking, Busy).value))
            for asking in set(waiting) - set(refused):
                asking.cancel()
                self.failureResultOf(asking, CancelledError)
        self.assertEqual({"cache-upstream-max-queue": 3}, self.http.reached)
        held.close()

    def test_waiting_for_a_slot_is_bounded(self) -> None:
        """A request that waits too long gets Busy: the upstream does not count as away."""
        self.bounded(max_connections=1, queue_timeout_s=10)
        held = self.get(self.open())
        waiting = Deferred.fromCoroutine(self.open())
        self.http.wire.advance(9)
        self.assertNoResult(waiting)
        self.http.wire.advance(1)
        self.failureResultOf(waiting, Busy)
        self.assertEqual({"cache-upstream-queue-timeout": 1}, self.http.reached)
        held.close()
        self.get(self.open()).close()

    def test_nars_do_not_hold_up_narinfos(self) -> None:
        """While all places for NARs are taken, a narinfo is fetched nevertheless."""
        self.bounded(max_connections=1, max_queries=1)
        held = self.get(self.open())
        self.get(self.upstream.narinfo(self.sample.digest))
        self.get(self.upstream.stat_nar(self.sample.url))
        held.close()

    def test_part_that_was_not_asked_for_is_corrupt(self) -> None:
        """If a server sends a part of a text, it is incomplete, whatever the part looks like."""
        self.http.files["log/x.drv"] = b"the end\n"
        self.http.status = "206 Partial Content"
        self.refused(self.upstream.text("log/x.drv", 100), Corrupt)
        self.refused(self.upstream.narinfo(self.sample.digest), Corrupt)

    def test_nonsense_cache_info_is_corrupt(self) -> None:
        """An upstream's nix-cache-info must be valid."""
        self.http.files["nix-cache-info"] = b"<html>"
        self.refused(self.upstream.cache_info(), Corrupt)

    def test_trickling_narinfo_is_given_up(self) -> None:
        """A byte from time to time does not keep a query for ever."""
        asking = Deferred.fromCoroutine(self.upstream.narinfo(self.sample.digest))
        line = self.http.wire.accept()
        line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        for _ in range(int(QUERY_S) - 1):
            self.http.wire.advance(1)
            line.say(b"x")
        self.assertNoResult(asking)
        self.http.wire.advance(1)
        self.assertTrue(self.failureResultOf(asking, Unavailable).value.timed_out)
        self.assertFalse(line.is_up)

    def test_queries_are_bounded(self) -> None:
        """Of a thousand questions at the same time, a few run at a time."""
        asking = [Deferred.fromCoroutine(self.upstream.cache_info()) for _ in range(50)]
        self.assertEqual(2, self.http.wire.attempts)
        for query in asking[2:10]:  # a cancelled request leaves its place, too
            query.cancel()
            self.failureResultOf(query, CancelledError)
        for _ in range(100):
            self.http.work()
        for query in asking[:2] + asking[10:]:
            self.successResultOf(query)
        self.assertEqual(2, self.http.wire.attempts)

    def test_questions_of_other_caches_have_places_of_their_own(self) -> None:
        """Otherwise two caches that ask each other would hold the places each other waits for."""
        self.bounded(max_queries=1)
        ours = Deferred.fromCoroutine(self.upstream.cache_info())
        for distance in range(1, trail.DISTANCES):
            with trail.following(Trail(tuple(f"ncps-{n:04x}" for n in range(distance)))):
                asking = [Deferred.fromCoroutine(self.upstream.cache_info()) for _ in range(2)]
            self.assertEqual(1 + distance, self.http.wire.attempts)
        self.http.wire.advance(trail.FAR_S)
        self.failureResultOf(asking[1], Busy)
        for _ in range(10):
            self.http.work()
        self.successResultOf(ours)

    def test_transfers_are_bounded_and_give_their_place_back(self) -> None:
        """A place for a transfer is released with the body, also after an error."""
        for _ in range(3):
            self.get(self.open()).close()
            self.refused(self.upstream.open_nar("nar/none"), NotFound)
            self.refused(self.upstream.open_nar("http://["), Corrupt)
            cancelled = Deferred.fromCoroutine(self.open())
            cancelled.cancel()
            self.failureResultOf(cancelled, CancelledError)
        first, second = self.get(self.open()), self.get(self.open())
        third = Deferred.fromCoroutine(self.open())
        waiting = Deferred.fromCoroutine(self.open())
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        for _ in range(5):
            self.http.work()
        self.assertNoResult(third)
        first.close()
        first.close()
        for _ in range(5):
            self.http.work()
        self.successResultOf(third).close()
        second.close()
        self.assertEqual(2, self.http.client.turns.transfers.free)

    def test_body_closed_in_the_middle_ends_its_connection(self) -> None:
        """A NAR that no client wants any more is not fetched to its end."""
        opening = Deferred.fromCoroutine(self.open())
        line = self.http.wire.accept()
        line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nabc")
        self.successResultOf(opening).close()
        self.assertFalse(line.is_up)
