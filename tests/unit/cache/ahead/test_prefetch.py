"""Prefetch: which narinfos and NARs are fetched before a client asks for them."""

from __future__ import annotations

import lzma

from attrs import evolve
from twisted.logger import LogLevel, capturedLogs

from ncps.cache.ahead.rules import ALL, NARINFO, OFF
from ncps.cache.answers import Outcome, ServedNarInfo
from ncps.errors import Unavailable
from ncps.ports import NarRecord
from ncps.ports.catalog import NEVER_ASKED_FOR
from tests.fakes.samples import Sample, file_sample, sample
from tests.fakes.upstream import Script
from tests.unit.cache.ahead.rig import RULES, AheadCase, chain, referring


class PolicyTests(AheadCase):
    def begin(self, policy: str) -> list[Sample]:
        """Ask for the first of three paths; the last one is large."""
        self.ahead = evolve(RULES, policy=policy)
        self.restart()
        first, second, third = chain(3)
        large = sample("large", size=90_000)
        third = referring(third, [large])
        second = referring(second, [third])
        first = referring(first, [second])
        self.origin.add(first, second, third, large)
        self.assertEqual(Outcome.MISS, self.ask(first))
        return [first, second, third, large]

    def stored(self, paths: list[Sample]) -> list[bool]:
        return [one.key in self.catalog.records and self.is_stored(one) for one in paths]

    def is_stored(self, one: Sample) -> bool:
        return self.catalog.records[one.key].is_stored

    def test_off(self) -> None:
        paths = self.begin(OFF)
        self.assertEqual([paths[0].digest], self.narinfos_asked())
        self.assertEqual([], self.nars_asked())

    def test_narinfos_alone(self) -> None:
        """All levels are fetched, each path once, and each is a hit for the client."""
        paths = self.begin(NARINFO)
        self.assertEqual([one.digest for one in paths], self.narinfos_asked())
        self.assertEqual([], self.nars_asked())
        self.assertEqual([Outcome.HIT] * 4, [self.ask(one) for one in paths])
        self.assertEqual({"narinfo": 3}, self.fetched)
        self.assertEqual({"narinfo": 3}, self.used)

    def test_small_nars(self) -> None:
        """Small NARs are fetched, also that of the requested path."""
        paths = self.begin("small")
        self.assertEqual([True, True, True, False], self.stored(paths))
        self.assertEqual({"narinfo": 3, "nar": 3}, self.fetched)

    def test_all_nars(self) -> None:
        paths = self.begin(ALL)
        self.assertEqual([True] * 4, self.stored(paths))

    def test_prefetched_narinfos_are_verified_and_signed_as_all_others(self) -> None:
        paths = self.begin("small")
        text = self.get(self.cache.narinfo(paths[2].digest)).text
        self.assertIn(b"Sig: here.example.org:", text)
        self.assertEqual(paths[2].nar, lzma.decompress(self.download(paths[2].key)))

    def test_paths_that_refer_to_each_other_and_to_themselves(self) -> None:
        """Each is asked for once, in a circle as well; absent ones stop nothing."""
        first, second, third = (sample(f"circle{n}", size=2_000) for n in range(3))
        gone = [sample(f"gone{n}", size=2_000) for n in range(20)]
        circle = [first, second, third]
        made = [
            referring(one, [one, *gone, *others])
            for one, others in ((first, [second]), (second, [third]), (third, circle))
        ]
        self.origin.add(*made)
        self.ask(made[0])
        asked = self.narinfos_asked()
        self.assertEqual([1] * 3, [asked.count(one.digest) for one in circle])
        self.assertEqual([2] * 20, [asked.count(one.digest) for one in gone])  # two upstreams
        self.assertEqual([True] * 3, self.stored(circle))
        self.assertEqual(0, self.core.ahead.pending)

    def test_a_narinfo_that_no_key_vouches_for_is_not_taken(self) -> None:
        first, second = chain(2)
        self.origin.add(first)
        self.origin.narinfos[second.digest] = evolve(second.narinfo, signatures=())
        self.ask(first)
        self.assertNotIn(second.digest, self.catalog.entries)
        self.assertEqual({"nar": 1}, self.fetched)


class OccasionTests(AheadCase):
    """Cases in which nothing is fetched ahead."""

    def setUp(self) -> None:
        super().setUp()
        self.paths = chain(3)
        self.origin.add(*self.paths)

    def assert_alone(self) -> None:
        self.assertEqual([self.paths[0].digest], self.narinfos_asked())
        self.assertEqual([], self.nars_asked())

    def test_head(self) -> None:
        self.ask(self.paths[0], leads_on=False)
        self.assert_alone()

    def test_question_of_another_cache(self) -> None:
        self.ask_through(self.paths[0], "ncps-1234")
        self.assert_alone()

    def test_path_that_was_known_before(self) -> None:
        """A restart forgets the walks; hits begin none."""
        self.ask(self.paths[0], leads_on=False)
        self.restart()
        self.assertEqual(Outcome.HIT, self.ask(self.paths[0]))
        self.assert_alone()

    def test_path_that_upstreams_do_not_have(self) -> None:
        """It is asked for once; the absence is remembered like any other."""
        gone = self.paths[1].digest
        del self.origin.narinfos[gone]
        self.ask(self.paths[0])
        self.assertEqual([self.paths[0].digest, gone, gone], self.narinfos_asked())  # at both
        self.assertIn(gone, self.negatives)

    def test_upstreams_that_are_away(self) -> None:
        for each in self.world.upstreams.candidates:
            for _ in range(3):
                each.health.failed("refused")
        self.origin.log.clear()
        one = self.paths[0]
        nar = NarRecord(key=one.key, compression="xz", file_size=100)
        served = ServedNarInfo(one.narinfo.render(), b"", Outcome.MISS, "", nar)
        self.core.ahead.narinfo_asked(one.digest, served)
        self.clock.advance(0)
        self.assertEqual([], self.narinfos_asked())
        self.assertEqual(2, self.dropped["away"])  # a narinfo and a NAR

    def test_a_client_gets_its_answer_first(self) -> None:
        """Nothing begins in the turn of the question."""
        self.get(self.cache.narinfo(self.paths[0].digest, leads_on=True))
        self.assert_alone()
        self.clock.advance(0)
        self.assertEqual(3, len(self.narinfos_asked()))

    def test_path_whose_bytes_have_to_be_read_first(self) -> None:
        """No bound of guesses covers these bytes; a client's request reads them.

        Its narinfo is not asked for a second time.
        """
        proved = file_sample()
        first = referring(self.paths[0], [proved])
        self.origin.add(first, proved)
        self.ask(first)
        self.assertNotIn(proved.url, self.nars_asked())
        self.assertNotIn(proved.digest, self.negatives)
        self.assertEqual(Outcome.MISS, self.ask(proved))
        self.assertEqual([first.digest, proved.digest], self.narinfos_asked())

    def test_end_of_the_service_before_anything_was_begun(self) -> None:
        self.get(self.cache.narinfo(self.paths[0].digest, leads_on=True))
        self.core.ahead.stop()
        self.clock.advance(1)
        self.assert_alone()
        self.assertEqual(2, self.dropped["stopped"])

    def test_end_of_the_service(self) -> None:
        self.core.ahead.stop()
        self.ask(self.paths[0])
        self.assert_alone()


class JoiningTests(AheadCase):
    """Clients that ask for a thing while it is being fetched ahead."""

    def setUp(self) -> None:
        super().setUp()
        self.paths = chain(2)
        self.origin.add(*self.paths)
        self.ask(self.paths[0], leads_on=False)
        self.origin.is_silent = True
        self.lead_on(self.paths[0])  # the question for the second one is held

    def test_one_question_for_both(self) -> None:
        second = self.start(self.cache.narinfo(self.paths[1].digest, leads_on=True))
        self.assertNoResult(second)
        self.origin.is_silent = False
        self.origin.release()
        self.clock.advance(0)
        self.assertEqual(Outcome.COALESCED, self.successResultOf(second).outcome)
        self.assertEqual([one.digest for one in self.paths], self.origin_narinfos())
        self.assertNotIn("narinfo", self.fetched)  # a client has asked for it since

    def origin_narinfos(self) -> list[str]:
        return [what for what, _ in self.origin.asked("narinfo")]

    def test_client_gets_what_it_would_have_got_alone(self) -> None:
        """If a guess fails, the client that has joined it gets a question of its own."""
        second = self.start(self.cache.narinfo(self.paths[1].digest))
        self.origin.is_silent = False
        self.origin.release(Unavailable("reset"))
        self.clock.advance(0)
        self.successResultOf(second)

    def test_failure_of_a_guess_is_no_warning(self) -> None:
        with capturedLogs() as events:
            self.origin.release(Unavailable("reset"))
            self.clock.advance(1)
        loud = [each for each in events if each["log_level"] > LogLevel.debug]
        self.assertEqual([], loud)
        self.release()

    def test_places_of_a_question_that_a_client_has_joined(self) -> None:
        """After that it is a client's question, with a client's places."""
        asking = self.start(self.cache.narinfo(self.paths[1].digest))
        (guess,) = self.narinfos._search._guesses.values()
        self.assertTrue(guess.is_wanted)
        self.release()
        self.clock.advance(0)
        self.successResultOf(asking)

    def test_failure_of_a_guess_opens_no_breaker(self) -> None:
        self.origin.release(Unavailable("reset"))
        self.clock.advance(1)
        candidate = self.world.upstreams.candidates[0]
        self.assertFalse(candidate.health.is_in_doubt)
        self.origin.is_silent = False
        self.origin.release()


class JoiningNarTests(AheadCase):
    """Clients that ask for a NAR while it is being fetched ahead."""

    def setUp(self) -> None:
        super().setUp()
        (self.one,) = chain(1)
        self.origin.add(self.one)

    def begin(self, script: Script) -> None:
        """Ask for a narinfo, and let its NAR be fetched ahead as the script says."""
        self.origin.scripts.append(script)
        self.ask(self.one)

    def test_one_transfer_for_both(self) -> None:
        self.begin(Script(stall_at=1000))
        self.assertEqual((1, 0), (len(self.core.running), self.core.running.wanted))
        opening = self.open(self.one.key)
        self.assertEqual(1, self.core.running.wanted)
        self.release()
        self.clock.advance(0)
        _, client = self.successResultOf(opening)
        self.successResultOf(client.done)
        self.assertEqual(self.one.file, client.data)
        self.assertEqual([self.one.url], self.nars_asked())
        self.assertNotIn("nar", self.fetched)
        self.assertNotEqual(NEVER_ASKED_FOR, self.catalog.records[self.one.key].last_used_at)

    def test_client_gets_what_it_would_have_got_alone(self) -> None:
        """The client's own download follows a failed guess, before it gets any error."""
        self.begin(Script(hold=True))
        opening = self.open(self.one.key)
        self.origin.scripts.append(Script(error=Unavailable("reset")))  # in its second round
        self.origin.release(Unavailable("reset"))
        self.clock.pump([0.1] * 40)
        _, client = self.successResultOf(opening)
        self.successResultOf(client.done)
        self.assertEqual(self.one.file, client.data)

    def fail_guess(self) -> None:
        """Let the held guess fail, in both of its rounds."""
        self.origin.scripts.append(Script(error=Unavailable("reset")))
        self.origin.release(Unavailable("reset"))
        self.clock.pump([0.1] * 40)

    def test_head_is_answered_as_alone(self) -> None:
        self.begin(Script(hold=True))
        asking = self.start(self.cache.stat_nar(self.one.key))
        self.fail_guess()
        self.assertEqual((None, Outcome.MISS), self.successResultOf(asking))

    def test_bytes_for_work_of_our_own_come_as_alone(self) -> None:
        """Such work, for example a listing, reads the whole NAR."""
        self.begin(Script(hold=True))
        nar = self.catalog.records[self.one.key]
        reading = self.start(self.nars.read(nar))
        self.assertEqual(1, self.core.running.wanted)
        self.fail_guess()
        self.successResultOf(reading).close()

    def test_nothing_is_told_of_a_failure(self) -> None:
        self.origin.otherwise = Script(error=Unavailable("reset"))
        with capturedLogs() as events:
            self.ask(self.one)
            self.clock.pump([0.1] * 40)
        loud = [each for each in events if each["log_level"] > LogLevel.debug]
        self.assertEqual([], loud)
        self.assertTrue(self.world.upstreams.candidates[0].health.is_healthy)
        self.assertEqual(0, len(self.core.running))


class MemoryTests(AheadCase):
    """Narinfos that no client has asked for displace no used ones."""

    ahead = evolve(RULES, policy=NARINFO)

    def test_they_go_first(self) -> None:
        root, *others = chain(4)
        self.origin.add(root, *others)
        self.ask(root)
        self.assertEqual(4, len(self.memory))
        held = self.memory._by_digest
        size = held.size
        held._max_size = size  # full
        new = sample("new", size=20_000)
        self.origin.add(new)
        self.ask(new, leads_on=False)
        self.assertIsNotNone(held.get(root.digest))
        self.assertIsNotNone(held.get(new.digest))
        self.assertLess(len(self.memory), 5)

    def test_they_push_out_none(self) -> None:
        root, *others = chain(4)
        self.origin.add(root, *others)
        self.memory._by_digest._max_size = 2500  # two or three
        used = sample("used", size=20_000)
        self.origin.add(used)
        self.ask(used, leads_on=False)
        self.ask(root)
        held = self.memory._by_digest
        self.assertIsNotNone(held.get(used.digest))
        self.assertIsNotNone(held.get(root.digest))
