"""Narinfos: fetched once, verified, signed, recorded, shown only while their NAR can be had."""

from __future__ import annotations

from unittest import mock

from attrs import evolve
from twisted.internet.defer import Deferred

from ncps.aio.clocks import utc_now
from ncps.ask.health import FAILURES, MAX_PAUSE_S, SLOWEST_HEDGE_S
from ncps.ask.say import AWAY_S
from ncps.cache.answers import Absent, Outcome, ServedNarInfo
from ncps.cache.narinfo.find import EVICTED_REFRESH_S, REFRESH_S
from ncps.cache.narinfo.known import NarInfoMemory
from ncps.cache.narinfo.verify import NarInfoVerifier
from ncps.errors import Corrupt, NcpsError, NotFound, StorageFull, Unavailable
from ncps.nix.hashes import sha256_of
from ncps.nix.keys import SecretKey
from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import NarKey, opaque_key
from ncps.nix.references import References
from ncps.peering import trail
from ncps.peering.trail import Trail
from ncps.ports import NarInfoEntry, NarRecord
from tests.fakes.clocks import SetClock
from tests.fakes.samples import OWN_KEY, sample, signed
from tests.fakes.threads import NotingThreads
from tests.fakes.upstream import ScriptedUpstream
from tests.unit.cache.rig import CoreCase


class NarInfosCase(CoreCase):
    def setUp(self) -> None:
        super().setUp()
        self.sample = sample(size=100_000)
        self.origin.add(self.sample)
        self.digest = self.sample.digest

    def ask(self) -> Deferred[ServedNarInfo]:
        return self.start(self.narinfos.get(self.digest))

    def served(self) -> ServedNarInfo:
        return self.successResultOf(self.ask())

    def asked(self, upstream: ScriptedUpstream | None = None) -> int:
        return len((upstream or self.origin).asked("narinfo"))

    def sicken(self, *upstreams: int) -> None:
        """Let these upstreams be known to be away."""
        for number in upstreams:
            for _ in range(FAILURES):
                self.upstreams.candidates[number].health.failed("refused")

    def store_it(self) -> None:
        self.download(self.sample.key)


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
        """What was recorded is served by the next process, too."""
        text = self.served().text
        self.restart()
        self.assertEqual((text, Outcome.HIT), (self.served().text, self.served().outcome))
        self.assertEqual(1, self.asked())

    def test_clients_at_once_share_one_fetch(self) -> None:
        """A hundred clients with one question are one question to the upstream."""
        self.origin.is_silent = True
        asking = [self.ask() for _ in range(100)]
        asking[0].cancel()
        asking[0].addErrback(lambda _: None)
        self.origin.release()
        outcomes = [self.successResultOf(one).outcome for one in asking[1:]]
        self.assertEqual([Outcome.COALESCED] * 99, outcomes)
        self.assertEqual(1, self.asked())

    def test_last_use_is_noted(self) -> None:
        """When a narinfo was last asked for is written down in time."""
        self.served()
        self.clock.advance(100)
        self.served()
        self.get(self.uses.flush())
        self.assertEqual(utc_now(self.clock), self.catalog.entries[self.digest].last_used_at)

    def test_peer_was_quicker(self) -> None:
        """If another replica recorded it while the lease was waited for, nothing is fetched."""
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
        """A dead upstream in front of a live one hardly delays the answer."""
        self.mirror.add(self.sample)
        self.origin.is_silent = True
        asking = self.ask()
        self.clock.advance(SLOWEST_HEDGE_S)
        self.assertEqual("b.example.org", self.successResultOf(asking).upstream)
        self.assertLess(SLOWEST_HEDGE_S, 0.2)
        self.origin.release()

    def test_bad_answers_are_passed_by(self) -> None:
        """A web page, another path, a bad signature, a server error: the next one is asked."""
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
        """The record of a NAR that is not stored is as the last narinfo says."""
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
        """What was fetched while the clock was a year ahead is not fresh for a year."""
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
        """Only sure absence everywhere is 404 and remembered; all else may be tried again."""
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

    def test_what_nobody_vouches_for_is_absent_but_not_remembered(self) -> None:
        """A stranger's signature ends no build, and does not outlive its mending."""
        self.origin.narinfos[self.digest] = signed(
            self.sample.narinfo, SecretKey.generate("stranger-1")
        )
        error = self.failureResultOf(self.ask(), Absent).value
        self.assertIs(Outcome.UNSURE, error.outcome)
        self.assertIn("signed by stranger-1", str(error))
        self.origin.add(self.sample)
        self.served()

    def test_sick_upstream_does_not_outvote_one_that_denies(self) -> None:
        """503 while it was well a moment ago, then 404; it is not remembered."""
        self.origin.is_away = True
        self.failureResultOf(self.ask(), Unavailable)
        self.lose_say()
        error = self.failureResultOf(self.ask(), Absent).value
        self.assertIs(Outcome.UNSURE, error.outcome)
        self.origin.is_away = False
        self.clock.advance(MAX_PAUSE_S)
        self.served()

    def lose_say(self) -> None:
        """Let time go by in which nobody answers."""
        for _ in range(FAILURES):
            self.start(self.narinfos.get("0" * 32)).addErrback(lambda _: None)
        self.clock.advance(AWAY_S)

    def test_nobody_can_be_asked(self) -> None:
        """It is absent or cannot be told, as the setting says; what is stored is served."""
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

    def test_question_that_has_come_round(self) -> None:
        """It is answered from what is stored; nobody is asked, and nothing is remembered."""
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
        """What is not there now may be there in a while."""
        self.origin.narinfos.clear()
        error = self.failureResultOf(self.ask(), Absent).value
        self.assertIs(Outcome.MISS, error.outcome)
        self.failureResultOf(self.ask(), Absent)
        self.assertEqual(1, self.asked())
        self.origin.add(self.sample)
        self.clock.advance(30)
        self.served()

    def test_known_narinfo_beats_a_remembered_absence(self) -> None:
        """An absence is not held against what is recorded meanwhile."""
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
        """What is stored is served whatever the upstreams do, also right after a restart."""
        self.served()
        self.store_it()
        for upstream in self.scripted:
            upstream.is_away = True
        self.sicken(0, 1)
        self.restart()
        self.clock.advance(10 * REFRESH_S)
        self.assertEqual(Outcome.HIT, self.served().outcome)

    def test_nar_that_cannot_be_had_is_no_hit(self) -> None:
        """A narinfo whose NAR is not stored is not shown while its upstream is away."""
        self.served()
        self.sicken(0)
        self.mirror.is_away = True
        self.failureResultOf(self.ask(), Unavailable)

    def test_other_upstream_takes_over(self) -> None:
        """If another upstream has it, its word takes the place of the one that is away."""
        self.served()
        self.sicken(0)
        self.mirror.add(self.sample)
        self.assertEqual("b.example.org", self.served().upstream)
        self.assertEqual("http://b.example.org", self.catalog.records[self.sample.key].upstream)

    def test_refresh_after_an_hour(self) -> None:
        """Upstreams collect garbage: what is not stored is asked about again."""
        self.served()
        self.clock.advance(REFRESH_S - 1)
        self.assertEqual(Outcome.HIT, self.served().outcome)
        self.clock.advance(1)
        self.assertEqual(Outcome.MISS, self.served().outcome)
        self.origin.narinfos.clear()
        self.clock.advance(REFRESH_S)
        self.failureResultOf(self.ask(), NotFound)

    def test_evicted_nar_is_shown_only_while_an_upstream_has_it(self) -> None:
        """What was known long ago is asked about again when its bytes are gone, and soon again."""
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
        """While the NAR is on its way its narinfo holds."""
        from tests.fakes.upstream import Script

        self.served()
        self.origin.scripts.append(Script(stall_at=1000))
        client = self.client(self.sample.key)
        self.sicken(0, 1)
        self.assertEqual(Outcome.HIT, self.served().outcome)
        self.origin.release()
        self.successResultOf(client.done)

    def test_stored_by_a_peer_is_noticed(self) -> None:
        """What is in memory does not stand against what another replica has stored since."""
        self.served()
        self.sicken(0, 1)
        record = self.catalog.records[self.sample.key]
        stored = evolve(record, stored_at=utc_now(self.clock), stored_size=record.file_size)
        self.get(self.catalog.mark_stored(stored))
        self.assertEqual(Outcome.HIT, self.served().outcome)

    def test_read_that_was_overtaken_is_not_held(self) -> None:
        """What was read before a NAR's state changed is not kept in memory after it."""
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
        """What cannot be recorded is served all the same, and held in memory."""
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


class SharedNarTests(NarInfosCase):
    def test_second_narinfo_of_a_stored_nar_gets_its_sidecar(self) -> None:
        """A path whose NAR is stored already is recorded beside it at once."""
        self.served()
        self.store_it()
        other = sample("other", 10)
        twin = evolve(self.sample.narinfo, store_path=other.narinfo.store_path)
        self.origin.narinfos[other.digest] = signed(twin)
        self.get(self.narinfos.get(other.digest))
        self.assertIn(other.digest, self.sidecars.texts)

    def test_withdrawn_narinfos_are_gone_everywhere(self) -> None:
        """What turned out wrong is shown no more, by nobody."""
        self.served()
        self.store_it()
        self.get(self.narinfos.withdraw(self.sample.key))
        self.assertEqual(({}, {}), (self.catalog.entries, self.sidecars.texts))
        self.assertEqual(0, len(self.memory))

    def test_lost_narinfo_that_comes_back_meanwhile_is_dropped_again(self) -> None:
        """A request at the wrong moment does not bring a lost narinfo back into memory."""
        self.served()
        forget = self.catalog.forget_narinfo

        async def slow(digest: str) -> bool:
            self.served()
            return await forget(digest)

        self.patch(self.catalog, "forget_narinfo", slow)
        self.get(self.narinfos.lost(self.sample.key))
        self.assertIsNone(self.memory.get(self.digest))

    def opaque(self, file: bytes) -> NarInfo:
        """The same NAR under a URL that names no hash, with a file of its own."""
        altered = self.sample.altered(
            url="https://cdn/some/uuid", file_hash=sha256_of(file), file_size=len(file)
        )
        return altered.narinfo

    def test_other_file_of_a_stored_nar_is_described_as_stored(self) -> None:
        """If an upstream compresses anew, clients are told of the bytes that they will get."""
        key = NarKey(self.sample.narinfo.nar_hash.nix32, "xz")
        self.origin.narinfos[self.digest] = self.opaque(self.sample.file)
        self.served()
        record = self.catalog.records[key]
        now = utc_now(self.clock)
        stored = evolve(record, stored_at=now, stored_size=record.file_size, verified_at=now)
        self.get(self.catalog.mark_stored(stored))
        self.get(self.catalog.forget_narinfo(self.digest))
        self.restart()
        self.origin.narinfos[self.digest] = self.opaque(b"other bytes")
        told = NarInfo.parse(self.served().text)
        self.assertEqual(
            (sha256_of(self.sample.file), len(self.sample.file)), (told.file_hash, told.file_size)
        )
        self.assertEqual(key.url, told.url)

    def test_other_file_of_a_stored_nar_that_nobody_has_looked_into(self) -> None:
        """What is stored may be wrong: the other file gets another name of the same NAR."""
        key = NarKey(self.sample.narinfo.nar_hash.nix32, "xz")
        self.origin.narinfos[self.digest] = self.opaque(self.sample.file)
        self.served()
        stored = evolve(self.catalog.records[key], stored_at=utc_now(self.clock), stored_size=1)
        self.get(self.catalog.mark_stored(stored))
        self.get(self.catalog.forget_narinfo(self.digest))
        self.restart()
        self.origin.narinfos[self.digest] = self.opaque(b"other bytes")
        told = NarInfo.parse(self.served().text)
        self.assertEqual(opaque_key("xz", told.nar_hash, 1).url, told.url)
        self.assertEqual(sha256_of(b"other bytes"), told.file_hash)

    def test_narinfo_that_points_at_another_paths_nar(self) -> None:
        """Where a URL is known for another NAR's, the path's own is named by its NarHash."""
        self.served()
        self.store_it()
        other = sample("other", 10)
        thief = evolve(other.narinfo, url=self.sample.url)
        self.origin.narinfos[other.digest] = signed(thief)
        told = NarInfo.parse(self.get(self.narinfos.get(other.digest)).text)
        self.assertEqual(NarKey(other.narinfo.nar_hash.nix32, "xz").url, told.url)
        self.assertEqual(self.sample.url, self.catalog.entries[other.digest].upstream_url)
        self.assertTrue(self.catalog.records[self.sample.key].is_stored)

    def test_upstreams_that_disagree_about_the_nar(self) -> None:
        """Of two NarHashes of one path the stored and verified one holds; both are noted."""
        self.served()
        different = self.sample.altered(nar_hash=sha256_of(b"different"))
        self.origin.narinfos[self.digest] = different.narinfo
        self.clock.advance(REFRESH_S)
        newer = NarInfo.parse(self.served().text)
        self.assertEqual((different.narinfo.nar_hash, 1), (newer.nar_hash, self.disagreements))

    def test_stored_and_verified_one_holds(self) -> None:
        """If the NAR came to be stored while another upstream was asked, its word holds."""
        self.served()
        first = self.catalog.narinfo
        self.memory.drop(self.digest)
        self.sicken(0)
        different = self.sample.altered(nar_hash=sha256_of(b"different"))
        self.mirror.narinfos[self.digest] = different.narinfo
        self.mirror.is_silent = True
        asking = self.ask()
        record = self.catalog.records[self.sample.key]
        stored = evolve(record, stored_at=utc_now(self.clock), stored_size=record.file_size)
        self.get(self.catalog.mark_stored(stored))
        self.mirror.release()
        told = NarInfo.parse(self.successResultOf(asking).text)
        self.assertEqual((self.sample.narinfo.nar_hash, 1), (told.nar_hash, self.disagreements))
        self.assertIsNotNone(self.get(first(self.digest)))

    def test_what_holds_is_judged_in_a_thread(self) -> None:
        """If it has many references: to look at its signatures anew is dear."""
        places: list[bool] = []
        judge = NarInfoVerifier.vouched

        def vouched(vetting: NarInfoVerifier, entry: NarInfoEntry) -> NarInfoEntry | None:
            places.append(threads.is_running)
            return judge(vetting, entry)

        threads = NotingThreads()
        self.vetting = evolve(self.vetting, workers=threads)
        self.restart()
        with (
            mock.patch.object(References, "is_long", new=True),
            mock.patch.object(NarInfoVerifier, "vouched", vouched),
        ):
            self.test_stored_and_verified_one_holds()
        self.assertEqual({True}, set(places))

    def same(self, nar: NarRecord) -> NarRecord | None:
        return self.get(self.narinfos.same_nar(self.upstreams.candidates[1], nar))

    def test_same_nar_at_another_upstream(self) -> None:
        """Another upstream's NAR is the same by its NarHash and compression, its file aside."""
        self.served()
        record = self.catalog.records[self.sample.key]
        self.assertIsNone(self.same(record))
        self.mirror.narinfos[self.digest] = self.opaque(self.sample.file)
        found = self.same(record)
        assert found is not None
        self.assertEqual("https://cdn/some/uuid", found.origin_url)
        self.mirror.narinfos[self.digest] = self.opaque(b"other bytes")
        self.assertIsNotNone(self.same(record))
        self.assertIsNone(self.same(evolve(record, compression="zstd")))
        self.assertIsNone(self.same(evolve(record, nar_hash=sha256_of(b"other"))))


class RepeatTests(NarInfosCase):
    """What the web floor may say again without asking."""

    def setUp(self) -> None:
        super().setUp()
        self.forgotten: list[str] = []
        self.narinfos.watch(self.forgotten.append)

    def may_repeat(self) -> bool:
        may_repeat = self.served().may_repeat
        self.assertIsNotNone(may_repeat)
        assert may_repeat is not None
        return may_repeat()

    def test_only_a_hit_that_is_held_may_be_repeated(self) -> None:
        """The first answer is another one: a miss; and without memory nobody would be told."""
        self.assertIsNone(self.served().may_repeat)
        self.assertTrue(self.may_repeat())
        self.narinfos._memory = NarInfoMemory(0)
        self.assertIsNone(self.served().may_repeat)

    def test_answer_for_a_stored_nar_lasts(self) -> None:
        """It is shown whatever becomes of the upstreams, as the narinfo itself."""
        self.served()
        self.store_it()
        self.assertEqual([self.digest], self.forgotten)
        self.assertTrue(self.may_repeat())
        self.sicken(0, 1)
        self.assertTrue(self.may_repeat())

    def test_answer_for_a_nar_that_is_not_stored_depends_on_its_upstream(self) -> None:
        """P1: it may be shown only while its NAR can be had."""
        self.served()
        may_repeat = self.served().may_repeat
        assert may_repeat is not None
        self.sicken(0)
        self.assertFalse(may_repeat())
        self.upstreams.candidates[0].health.answered()
        self.assertTrue(may_repeat())
        self.clock.advance(REFRESH_S)
        self.assertFalse(may_repeat())

    def test_lost_and_withdrawn_are_forgotten(self) -> None:
        """Whatever takes a narinfo back takes back what was made of it."""
        self.served()
        self.store_it()
        self.served()
        for take_back in (self.narinfos.lost, self.narinfos.withdraw):
            self.forgotten.clear()
            self.served()
            self.get(take_back(self.sample.key))
            self.assertIn(self.digest, self.forgotten)
        self.served()
        self.forgotten.clear()
        self.narinfos.changed(self.sample.key)
        self.assertEqual([self.digest], self.forgotten)

    def test_repeated_answers_are_uses(self) -> None:
        """Eviction sees them, and the memory, too."""
        self.served()
        self.get(self.uses.flush())
        self.clock.advance(100)
        self.narinfos.repeated([self.digest])
        self.get(self.uses.flush())
        row = self.get(self.catalog.narinfo(self.digest))
        assert row is not None
        self.assertEqual(utc_now(self.clock), row[0].last_used_at)
