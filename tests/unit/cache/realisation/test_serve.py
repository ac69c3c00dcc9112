"""Realisations that upstreams have: fetched once, checked, signed and kept."""

from __future__ import annotations

from datetime import timedelta

from attrs import evolve

from ncps.ask.health import AWAY_S, FAILURES
from ncps.cache.answers import Outcome
from ncps.cache.upkeep.realisations import UNUSED_S, UnusedRealisations
from ncps.errors import Corrupt, StorageFull, Unavailable
from ncps.nix.keys import Signature
from ncps.nix.realisation import RealisationKey
from ncps.peering import trail
from ncps.peering.trail import Trail
from tests.contract.realisations import realisation, realisation_key
from tests.contract.samples import path_of
from tests.fakes.samples import UPSTREAM_KEY
from tests.unit.cache.realisation.rig import (
    STRANGER_KEY,
    RealisationsCase,
    signed,
    unsigned,
)


class FetchTests(RealisationsCase):
    def test_both_families_come_from_upstreams_and_stay(self) -> None:
        """The second client needs no upstream; our signature is added to theirs."""
        self.have(1, 2)
        for number in (1, 2):
            key = realisation_key(number)
            first = self.served(key)
            self.assertEqual((Outcome.MISS, "a.example.org"), (first.outcome, first.upstream))
            told = self.told(key)
            self.assertTrue(told.says_as(realisation(number)))
            self.assertEqual(realisation(number).dependencies, told.dependencies)
            self.assertTrue(self.is_ours(told))
            self.assertIn(UPSTREAM_KEY.public.name, {s.name for s in told.signatures})
            again = self.served(key)
            self.assertEqual((first.text, first.tag), (again.text, again.tag))
            self.assertEqual(Outcome.HIT, again.outcome)
            self.assertFalse(self.rows.entries[key].is_uploaded)
        self.assertEqual(2, self.asked())
        self.assertEqual({}, self.copies.texts)

    def test_they_are_there_without_the_upstream(self) -> None:
        """Also after a restart."""
        self.have(1)
        self.served(realisation_key(1))
        self.restart()
        for upstream in self.scripted:
            upstream.is_away = True
        self.assertEqual(Outcome.HIT, self.served(realisation_key(1)).outcome)

    def test_many_clients_cause_one_question(self) -> None:
        """All of them get the same answer."""
        self.have(1)
        self.origin.is_silent = self.mirror.is_silent = True
        asking = [self.start(self.realisations.get(realisation_key(1))) for _ in range(5)]
        self.origin.release()
        answers = [self.successResultOf(each) for each in asking]
        self.assertEqual(1, len({answer.text for answer in answers}))
        self.assertEqual([Outcome.MISS] + 4 * [Outcome.COALESCED], [a.outcome for a in answers])
        self.assertEqual(1, len(self.origin.asked("realisation")))

    def test_a_narinfo_without_a_trusted_key_is_absent(self) -> None:
        """No signature, a stranger's, one of another path, one of another output."""
        one, other = realisation(1), realisation(3)
        wrong = evolve(one, out_path=path_of(9))
        for made in (
            unsigned(1),
            signed(one, STRANGER_KEY),
            evolve(one, signatures=signed(wrong, UPSTREAM_KEY).signatures),
            evolve(one, signatures=signed(other, UPSTREAM_KEY).signatures),
            evolve(one, signatures=(Signature(UPSTREAM_KEY.public.name, bytes(64)),)),
        ):
            self.origin.realisations[one.key] = made
            self.assertEqual(Outcome.UNSURE, self.absent(one.key))
            self.assertEqual({}, self.rows.entries)
        self.mirror.realisations[one.key] = signed(one, UPSTREAM_KEY)
        self.assertEqual("b.example.org", self.served(one.key).upstream)

    def test_the_go_program_as_an_upstream(self) -> None:
        """It signs whole paths: its key vouches for these, and our signature is one for Nix."""
        made = realisation(1, signatures=())
        whole, base = made.texts_of_go
        for message in (whole, base):
            self.rows.entries.clear()
            self.origin.realisations[made.key] = evolve(
                made, signatures=(UPSTREAM_KEY.sign(message),)
            )
            told = self.told(made.key)
            self.assertTrue(told.says_as(made))
            self.assertTrue(self.is_ours(told))

    def test_dependencies_that_no_key_vouches_for_are_left_out(self) -> None:
        """A signature of Nix 2.34 does not cover them, and so ours must not, either."""
        made = realisation(2)
        bare = signed(made.without_dependencies(), UPSTREAM_KEY)
        self.origin.realisations[made.key] = evolve(made, signatures=bare.signatures)
        told = self.told(made.key)
        self.assertEqual((), told.dependencies)
        self.assertTrue(self.is_ours(told))

    def test_without_keys_they_pass_as_they_are(self) -> None:
        """Then nothing can be verified, and nothing is signed."""
        self.vetting.trusted.replace(())
        made = unsigned(1)
        self.origin.realisations[made.key] = made
        self.assertEqual(made, self.told(made.key))
        self.assertEqual(made, self.told(made.key))

    def test_an_absence_is_remembered_until_it_ends(self) -> None:
        """Each upstream has denied it: they are asked again after a while, or after an upload."""
        key = realisation_key(1)
        self.assertEqual(Outcome.MISS, self.absent(key))
        self.assertEqual(Outcome.NEGATIVE, self.absent(key))
        self.assertEqual(2, self.asked())
        self.clock.advance(31)
        self.have(1)
        self.assertEqual(Outcome.MISS, self.served(key).outcome)

    def test_unsure_answer_is_no_absence(self) -> None:
        """A failing upstream causes 503, and nothing is remembered; one long away is left out."""
        key = realisation_key(1)
        self.origin.realisations[key] = Unavailable("status 500")
        self.refused(self.realisations.get(key), Unavailable)
        self.origin.realisations[key] = Corrupt("not a realisation")
        self.refused(self.realisations.get(key), Corrupt)
        for upstream in self.scripted:
            upstream.is_away = True
        for _ in range(FAILURES):
            self.refused(self.realisations.get(key), Unavailable)
        self.clock.advance(AWAY_S)
        self.assertEqual(Outcome.AWAY, self.absent(key))
        self.assertNotIn(key, self.negatives)

    def test_below_upload_no_upstream_is_asked(self) -> None:
        """A client that checks there before an upload learns whether it is here."""
        self.have(1)
        key = realisation_key(1)
        self.assertEqual(Outcome.MISS, self.absent(key, is_local=True))
        self.assertEqual(0, self.asked())
        self.served(key)
        self.assertEqual(Outcome.HIT, self.served(key, is_local=True).outcome)

    def test_a_question_of_this_cache_itself_asks_no_upstream(self) -> None:
        """Caches may be each other's upstreams."""
        self.have(1)
        with trail.following(Trail(names=("ncps-here",), question="1", has_come_round=True)):
            self.assertEqual(Outcome.RING, self.absent(realisation_key(1)))
        self.assertEqual(0, self.asked())


class RecordTests(RealisationsCase):
    def test_a_narinfo_that_cannot_be_recorded_is_served(self) -> None:
        """On a full database the client gets its answer; if the database is away, it is unknown."""
        self.have(1)
        for error in (StorageFull("full"), Unavailable("locked")):
            self.rows.failing_writes = error
            self.assertEqual(Outcome.MISS, self.served(realisation_key(1)).outcome)
        self.rows.failing = Unavailable("away")
        self.refused(self.realisations.get(realisation_key(1)), Unavailable)

    def test_a_key_that_is_trusted_no_more_vouches_for_nothing(self) -> None:
        """The upstreams are asked again, and one with a trusted key's signature replaces it."""
        self.have(1)
        key = realisation_key(1)
        self.served(key)
        self.vetting.trusted.replace([STRANGER_KEY.public])
        self.assertEqual(Outcome.UNSURE, self.absent(key))
        other = signed(realisation(1, out_path=path_of(7)), STRANGER_KEY)
        self.origin.realisations[key] = other
        self.assertTrue(self.told(key).says_as(other))
        self.assertEqual(str(STRANGER_KEY.public), self.rows.entries[key].verified_by)

    def test_a_new_key_of_ours_signs_what_is_recorded(self) -> None:
        """The former key's signature is removed."""
        self.have(2)
        key = realisation_key(2)
        self.served(key)
        self.vetting.use(STRANGER_KEY, ())
        names = [s.name for s in self.told(key).signatures]
        self.assertEqual(2, names.count(STRANGER_KEY.public.name))
        self.assertEqual(1, names.count(UPSTREAM_KEY.public.name))
        self.assertEqual(3, len(names))

    def test_the_unused_are_forgotten(self) -> None:
        """Only fetched ones, and only if no client has asked for them for a long time."""
        self.have(1, 2)
        for number in (1, 2):
            self.served(realisation_key(number))
        self.upload(unsigned(3))
        upkeep = UnusedRealisations(self.world, self.realisations.records)
        self.get(upkeep.look())
        self.clock.advance(UNUSED_S - 10)
        self.served(realisation_key(2))
        self.get(upkeep.look())
        self.clock.advance(20)
        self.get(upkeep.look())
        left: set[RealisationKey] = {realisation_key(2), realisation_key(3)}
        self.assertEqual(left, set(self.rows.entries))
        fetched, used = (
            getattr(self.rows.entries[realisation_key(2)], name)
            for name in ("fetched_at", "last_used_at")
        )
        self.assertEqual(timedelta(seconds=UNUSED_S - 10), used - fetched)
