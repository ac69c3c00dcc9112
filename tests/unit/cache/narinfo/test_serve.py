"""Narinfos: fetched once, verified, signed, recorded, shown only with a NAR to get."""

from __future__ import annotations

from attrs import evolve

from ncps.aio.clocks import utc_now
from ncps.ask.health import AWAY_S, FAILURES, MAX_PAUSE_S, SLOWEST_HEDGE_S
from ncps.cache.answers import Absent, Outcome
from ncps.cache.narinfo.record import EVICTED_REFRESH_S, REFRESH_S
from ncps.errors import Corrupt, NcpsError, NotFound, StorageFull, Unavailable
from ncps.nix.keys import SecretKey
from ncps.nix.narinfo import NarInfo
from ncps.peering import trail
from ncps.peering.trail import Trail
from tests.fakes.clocks import SetClock
from tests.fakes.samples import OWN_KEY, sample, signed
from tests.unit.cache.narinfo.rig import NarInfosCase


class FetchTests(NarInfosCase):
    def test_miss_then_hit(self) -> None:
        """The first client causes a fetch, the second gets the same text from memory."""
        first, second = self.served(), self.served()
        self.assertEqual(
            (Outcome.MISS, Outcome.HIT, "a.example.org"),
            (first.outcome, second.outcome, second.upstream),
        )
        self.assertEqual(first.text, second.text)
        names = [signature.name for signature in NarInfo.parse(first.text).signatures]
        self.assertIn(OWN_KEY.name, names)
        self.assertEqual(1, self.asked())

    def test_hit_from_the_catalog_after_a_restart(self) -> None:
        """The next process also serves a recorded narinfo."""
        text = self.served().text
        self.restart()
        self.assertEqual((text, Outcome.HIT), (self.served().text, self.served().outcome))
        self.assertEqual(1, self.asked())

    def test_clients_at_once_share_one_fetch(self) -> None:
        """A hundred clients with one question cause one question to the upstream."""
        self.origin.is_silent = True
        asking = [self.ask() for _ in range(100)]
        asking[0].cancel()
        asking[0].addErrback(lambda _: None)
        self.origin.release()
        outcomes = [self.successResultOf(one).outcome for one in asking[1:]]
        self.assertEqual([Outcome.COALESCED] * 99, outcomes)
        self.assertEqual(1, self.asked())

    def test_last_use_is_noted(self) -> None:
        """The time of a narinfo's last use is written to the catalog."""
        self.served()
        self.clock.advance(100)
        self.served()
        self.get(self.uses.flush())
        self.assertEqual(utc_now(self.clock), self.catalog.entries[self.digest].last_used_at)

    def test_peer_was_quicker(self) -> None:
        """If another replica recorded it during the wait for the lease, nothing is fetched."""
        self.served()
        entries, records = dict(self.catalog.entries), dict(self.catalog.records)
        keys = dict(self.catalog._key_of)
        self.setUp()
        lease = self.get(self.leases.try_hold(f"download:narinfo:{self.digest}"))
        assert lease is not None
        asking = self.ask()
        self.catalog.entries, self.catalog.records, self.catalog._key_of = entries, records, keys
        self.get(lease.release())
        self.successResultOf(asking)
        self.assertEqual(0, self.asked())

    def test_silent_first_upstream_costs_less_than_200_ms(self) -> None:
        """A dead upstream before a working one hardly delays the answer."""
        self.mirror.add(self.sample)
        self.origin.is_silent = True
        asking = self.ask()
        self.clock.advance(SLOWEST_HEDGE_S)
        self.assertEqual("b.example.org", self.successResultOf(asking).upstream)
        self.assertLess(SLOWEST_HEDGE_S, 0.2)
        self.origin.release()

    def test_bad_answers_are_passed_by(self) -> None:
        """A web page, another path, a bad signature, a server error: the next upstream is asked."""
        other = sample("other", 100).narinfo
        forged = signed(self.sample.narinfo, SecretKey.generate("stranger-1"))
        bads: list[NarInfo | NcpsError] = [
            Corrupt("not a narinfo: HTML"),
            Unavailable("status 500"),
            other,
            forged,
            evolve(self.sample.narinfo, url="?"),
        ]
        for bad in bads:
            self.setUp()
            self.mirror.add(self.sample)
            self.origin.narinfos[self.digest] = bad
            self.assertEqual("b.example.org", self.served().upstream)

    def test_record_follows_the_upstream(self) -> None:
        """The record of a NAR that is not stored has the facts of the latest narinfo."""
        self.served()
        self.clock.advance(REFRESH_S)
        moved = self.sample.altered(url=f"https://cdn/{self.sample.url}?t=1")
        self.origin.narinfos[self.digest] = moved.narinfo
        self.served()
        self.assertEqual(moved.url, self.catalog.records[self.sample.key].origin_url)


class SetClockTests(NarInfosCase):
    """The time of day is set."""

    new_clock = SetClock

    def test_narinfo_from_the_future_is_asked_for_again(self) -> None:
        """A narinfo fetched while the clock was a year ahead does not stay fresh for a year."""
        assert isinstance(self.clock, SetClock)
        self.clock.ahead += 365 * 86400.0
        self.served()
        self.assertEqual(Outcome.HIT, self.served().outcome)
        self.clock.ahead -= 365 * 86400.0
        self.assertEqual(Outcome.MISS, self.served().outcome)
        self.assertEqual(Outcome.HIT, self.served().outcome)


class VerdictTests(NarInfosCase):
    """The failure policy, from upstreams to clients."""

    def outcome(self, first: NcpsError, second: NcpsError) -> type[Exception]:
        self.setUp()
        self.origin.narinfos[self.digest] = first
        self.mirror.narinfos[self.digest] = second
        asking = self.ask()
        self.clock.advance(1)
        error = self.failureResultOf(asking).value
        again = self.ask()
        self.clock.advance(1)
        remembered = self.failureResultOf(again).value
        is_remembered = isinstance(remembered, Absent) and remembered.outcome is Outcome.NEGATIVE
        self.assertEqual(type(error) is Absent, is_remembered)
        return type(error)

    def test_table(self) -> None:
        """Only a sure absence everywhere is 404 and remembered; all else may be tried again."""
        absent, bad = NotFound("404"), Corrupt("html")
        away, late = Unavailable("refused"), Unavailable("late", timed_out=True)
        for first, second, expected in (
            (absent, absent, Absent),
            (absent, away, Unavailable),
            (away, absent, Unavailable),
            (away, away, Unavailable),
            (late, bad, Unavailable),
            (bad, absent, Corrupt),
            (bad, bad, Corrupt),
        ):
            self.assertIs(expected, self.outcome(first, second))

    def test_a_narinfo_without_a_voucher_is_absent_but_not_remembered(self) -> None:
        """After a stranger's signature a client can go on, and may ask again."""
        self.origin.narinfos[self.digest] = signed(
            self.sample.narinfo, SecretKey.generate("stranger-1")
        )
        error = self.failureResultOf(self.ask(), Absent).value
        self.assertIs(Outcome.UNSURE, error.outcome)
        self.assertIn("signed by stranger-1", str(error))
        self.origin.add(self.sample)
        self.served()

    def test_failing_upstream_does_not_outvote_one_that_denies(self) -> None:
        """503 while it worked a moment ago, then 404; the absence is not remembered."""
        self.origin.is_away = True
        self.failureResultOf(self.ask(), Unavailable)
        self.lose_say()
        error = self.failureResultOf(self.ask(), Absent).value
        self.assertIs(Outcome.UNSURE, error.outcome)
        self.origin.is_away = False
        self.clock.advance(MAX_PAUSE_S)
        self.served()

    def lose_say(self) -> None:
        """Let time pass in which no upstream answers."""
        for _ in range(FAILURES):
            self.start(self.narinfos.get("0" * 32)).addErrback(lambda _: None)
        self.clock.advance(AWAY_S)

    def test_no_upstream_can_be_asked(self) -> None:
        """The narinfo is absent or an error, as the setting says; a stored one is served."""
        self.served()
        self.store_it()
        for is_absent, kind in ((True, Absent), (False, Unavailable)):
            for upstream in self.scripted:
                upstream.is_away = True
            self.narinfos._questions._is_absent_when_away = is_absent
            self.lose_say()
            error = self.refused(self.narinfos.get("1" * 32), kind)
            if isinstance(error, Absent):
                self.assertIs(Outcome.AWAY, error.outcome)
            else:
                self.assertIn("no upstream could be asked: ", error.told)
            self.assertEqual(0, len(self.negatives))
            self.assertEqual(Outcome.HIT, self.served().outcome)

    def test_question_that_returns(self) -> None:
        """The store answers the question; no upstream is asked, and nothing is remembered."""
        self.served()
        with trail.following(Trail(("ncps-0123", "ncps-4567"), has_come_round=True)):
            error = self.failureResultOf(self.ask(), Absent).value
            self.refused(self.nars.stat(self.sample.key), Absent)
            self.refused(self.nars.open(self.sample.key), Absent)
        self.assertIs(Outcome.RING, error.outcome)
        self.store_it()
        with trail.following(Trail(("ncps-0123", "ncps-4567"), has_come_round=True)):
            self.served()
            self.get(self.nars.stat(self.sample.key))
            self.get(self.nars.open(self.sample.key)).close()
        self.assertEqual((1, 0), (self.asked(), len(self.negatives)))

    def test_absence_is_asked_about_again_in_time(self) -> None:
        """A path that is absent now may exist later."""
        self.origin.narinfos.clear()
        error = self.failureResultOf(self.ask(), Absent).value
        self.assertIs(Outcome.MISS, error.outcome)
        self.failureResultOf(self.ask(), Absent)
        self.assertEqual(1, self.asked())
        self.origin.add(self.sample)
        self.clock.advance(30)
        self.served()

    def test_known_narinfo_beats_a_remembered_absence(self) -> None:
        """A remembered absence does not hide a narinfo that was recorded since."""
        self.negatives.add(self.digest)
        self.failureResultOf(self.ask(), Absent)
        text = self.text_of_another_process()
        self.assertEqual(text, self.served().text)

    def text_of_another_process(self) -> bytes:
        self.negatives.forget(self.digest)
        text = self.served().text
        self.memory.drop(self.digest)
        self.negatives.add(self.digest)
        return text


class ShowingTests(NarInfosCase):
    def test_stored_nar_is_shown_with_all_upstreams_down(self) -> None:
        """A stored NAR is served while all upstreams are away, also right after a restart."""
        self.served()
        self.store_it()
        for upstream in self.scripted:
            upstream.is_away = True
        self.sicken(0, 1)
        self.restart()
        self.clock.advance(10 * REFRESH_S)
        self.assertEqual(Outcome.HIT, self.served().outcome)

    def test_nar_that_cannot_be_had_is_no_hit(self) -> None:
        """A narinfo is not shown while its NAR is not stored and its upstream is away."""
        self.served()
        self.sicken(0)
        self.mirror.is_away = True
        self.failureResultOf(self.ask(), Unavailable)

    def test_other_upstream_takes_over(self) -> None:
        """The narinfo of another upstream takes the place of one whose upstream is away."""
        self.served()
        self.sicken(0)
        self.mirror.add(self.sample)
        self.assertEqual("b.example.org", self.served().upstream)
        self.assertEqual("http://b.example.org", self.catalog.records[self.sample.key].upstream)

    def test_refresh_after_an_hour(self) -> None:
        """Upstreams collect garbage: a narinfo whose NAR is not stored is asked for again."""
        self.served()
        self.clock.advance(REFRESH_S - 1)
        self.assertEqual(Outcome.HIT, self.served().outcome)
        self.clock.advance(1)
        self.assertEqual(Outcome.MISS, self.served().outcome)
        self.origin.narinfos.clear()
        self.clock.advance(REFRESH_S)
        self.failureResultOf(self.ask(), NotFound)

    def test_evicted_nar_is_shown_only_while_an_upstream_has_it(self) -> None:
        """A narinfo is fetched again when its NAR was evicted, and soon again after that."""
        self.served()
        self.store_it()
        self.clock.advance(EVICTED_REFRESH_S)
        self.get(self.catalog.mark_missing(self.sample.key))
        self.board.nar_changed(self.sample.key)
        self.assertEqual(Outcome.MISS, self.served().outcome)
        self.assertEqual(Outcome.HIT, self.served().outcome)
        self.clock.advance(EVICTED_REFRESH_S)
        self.origin.is_away = self.mirror.is_away = True
        self.failureResultOf(self.ask(), Unavailable)
        self.origin.is_away = self.mirror.is_away = False
        self.clock.advance(EVICTED_REFRESH_S)
        self.origin.narinfos.clear()
        self.failureResultOf(self.ask(), NotFound)

    def test_arriving_nar_is_shown(self) -> None:
        """While the NAR arrives, its narinfo is shown."""
        from tests.fakes.upstream import Script

        self.served()
        self.origin.scripts.append(Script(stall_at=1000))
        client = self.client(self.sample.key)
        self.sicken(0, 1)
        self.assertEqual(Outcome.HIT, self.served().outcome)
        self.origin.release()
        self.successResultOf(client.done)

    def test_stored_by_a_peer_is_noticed(self) -> None:
        """A narinfo in memory does not hide a NAR that another replica has stored since."""
        self.served()
        self.sicken(0, 1)
        record = self.catalog.records[self.sample.key]
        stored = evolve(record, stored_at=utc_now(self.clock), stored_size=record.file_size)
        self.get(self.catalog.mark_stored(stored))
        self.assertEqual(Outcome.HIT, self.served().outcome)

    def test_read_that_was_overtaken_is_not_held(self) -> None:
        """A row that was read before a NAR's state changed is not kept in memory after that."""
        self.served()
        self.restart()
        row = self.catalog.narinfo

        async def slow(digest: str) -> object:
            found = await row(digest)
            self.narinfos.changed(self.sample.key)
            return found

        self.patch(self.catalog, "narinfo", slow)
        self.served()
        self.assertIsNone(self.memory.get(self.digest))


class TroubleTests(NarInfosCase):
    def test_catalog_that_cannot_be_written(self) -> None:
        """A narinfo that cannot be recorded is served nevertheless, and held in memory."""
        for trouble in (Unavailable("locked"), StorageFull("disk full")):
            self.setUp()
            self.catalog.failing_writes = trouble
            self.assertEqual(Outcome.MISS, self.served().outcome)
            self.assertEqual(Outcome.HIT, self.served().outcome)
            self.assertEqual({}, self.catalog.entries)

    def test_catalog_that_cannot_be_read(self) -> None:
        """A database that fails is no absence."""
        self.catalog.failing = Unavailable("locked")
        self.failureResultOf(self.ask(), Unavailable)
        self.catalog.failing = None
        self.served()

    def test_leases_that_cannot_be_had(self) -> None:
        """Without leases nothing is fetched, and nothing is absent."""
        self.leases.failing = Unavailable("redis")
        self.failureResultOf(self.ask(), Unavailable)

    def test_sidecar_that_cannot_be_written(self) -> None:
        """A narinfo that cannot be kept beside its NAR is served nevertheless."""
        self.served()
        self.sidecars.failing = StorageFull("disk full")
        self.store_it()
        self.assertEqual({}, self.sidecars.texts)
        self.assertTrue(self.catalog.records[self.sample.key].is_stored)
