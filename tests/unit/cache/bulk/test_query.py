"""Where many paths are."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ncps.cache.answers import Absent
from ncps.cache.bulk.answers import PathState, Where
from ncps.cache.bulk.bulk import AT_ONCE, QUEUE, BulkQuestions
from ncps.cache.bulk.query import ASK_S
from ncps.errors import Busy, Unavailable
from ncps.nix.keys import SecretKey
from ncps.ports import NarInfoEntry, NarRecord
from tests.contract.samples import digest_of
from tests.fakes.samples import Sample, sample
from tests.fakes.upstream import Script
from tests.unit.cache.rig import CoreCase


class QueryCase(CoreCase):
    def setUp(self) -> None:
        super().setUp()
        self.bulk = BulkQuestions(self.world, self.core, self.narinfos.get)
        self.samples = [sample(f"s{number}", size=1000) for number in range(3)]

    def query(self, *digests: str, ask: bool = False) -> list[PathState]:
        return self.get(self.bulk.query(digests, ask=ask))

    def where(self, *digests: str, ask: bool = False) -> list[Where]:
        return [state.where for state in self.query(*digests, ask=ask)]

    def begin(self, *digests: str) -> Deferred[list[PathState]]:
        return self.start(self.bulk.query(digests, ask=True))


class QueryTests(QueryCase):
    def test_a_stored_path_is_here_with_its_sizes(self) -> None:
        """The answer has the path, the sizes and the upstream that it came from."""
        one = self.samples[0]
        self.origin.add(one)
        self.learn(one)
        self.download(one.key)
        narinfo = one.narinfo
        expected = PathState(
            digest=one.digest,
            where=Where.STORED,
            base=narinfo.store_path.base,
            upstream=self.origin.name,
            nar_size=narinfo.nar_size,
            file_size=narinfo.file_size,
        )
        self.assertEqual([expected], self.query(one.digest))

    def test_each_path_once_and_in_order(self) -> None:
        """A hash part that is named twice has one answer."""
        digests = [digest_of(number) for number in (3, 1, 3, 2)]
        found = [state.digest for state in self.query(*digests)]
        self.assertEqual([digest_of(3), digest_of(1), digest_of(2)], found)

    def test_without_asking_no_upstream_is_asked(self) -> None:
        """A path that only an upstream has is unknown, until a narinfo was found there."""
        known, other, _ = self.samples
        self.origin.add(known)
        self.origin.add(other)
        self.learn(known)
        self.origin.log.clear()
        found = self.where(known.digest, other.digest)
        self.assertEqual([Where.UPSTREAM, Where.UNKNOWN], found)
        self.assertEqual([], self.origin.log)

    def test_an_absence_that_is_remembered_is_told(self) -> None:
        """A path that each upstream has just denied is absent; later it is unknown."""
        digest = digest_of(1)
        self.refused(self.narinfos.get(digest), Absent)
        self.assertEqual([Where.ABSENT], self.where(digest))
        self.clock.advance(31)
        self.assertEqual([Where.UNKNOWN], self.where(digest))

    def test_upstreams_are_asked(self) -> None:
        """Of three paths, one is at an upstream, one is at none, and one cannot be found out."""
        here, absent, unclear = self.samples
        self.mirror.add(here)
        self.mirror.narinfos[unclear.digest] = Unavailable("broken")
        found = self.query(here.digest, absent.digest, unclear.digest, ask=True)
        self.assertEqual(
            [Where.UPSTREAM, Where.ABSENT, Where.UNKNOWN], [state.where for state in found]
        )
        self.assertEqual((self.mirror.name, here.narinfo.nar_size), found[0][3:5])

    def test_paths_that_are_here_are_not_asked_for(self) -> None:
        """No upstream is asked about a stored path."""
        one = self.samples[0]
        self.origin.add(one)
        self.learn(one)
        self.download(one.key)
        self.restart()
        self.origin.log.clear()
        self.bulk = BulkQuestions(self.world, self.core, self.narinfos.get)
        self.assertEqual([Where.STORED], self.where(one.digest, ask=True))
        self.assertEqual([], self.origin.log)

    def test_an_upstream_that_is_silent_costs_no_more_than_the_deadline(self) -> None:
        """Paths without an answer by then are unknown; those with one keep it."""
        one, *others = self.samples
        self.origin.add(one)
        self.learn(one)
        self.origin.is_silent = self.mirror.is_silent = True
        asked = self.begin(one.digest, *(each.digest for each in others))
        self.assertNoResult(asked)
        self.clock.advance(ASK_S)
        found = [state.where for state in self.successResultOf(asked)]
        self.assertEqual([Where.UPSTREAM, Where.UNKNOWN, Where.UNKNOWN], found)
        self.origin.release()
        self.mirror.release()

    def test_a_client_that_leaves_frees_its_place(self) -> None:
        """Nothing waits for it any more; the searches belong to the cache and go on."""
        self.origin.is_silent = self.mirror.is_silent = True
        for _ in range(AT_ONCE + 1):
            asked = self.begin(digest_of(1))
            asked.cancel()
            self.failureResultOf(asked)
        self.origin.release()
        self.mirror.release()
        self.assertEqual([Where.UNKNOWN], self.where(digest_of(2)))

    def test_questions_at_once_are_bounded(self) -> None:
        """Further ones wait in a bounded queue."""
        self.origin.is_silent = self.mirror.is_silent = True
        asked = [self.begin(digest_of(1)) for _ in range(AT_ONCE + QUEUE)]
        self.failureResultOf(self.begin(digest_of(1)), Busy)
        for each in asked:
            each.cancel()
            self.failureResultOf(each)
        self.origin.release()
        self.mirror.release()

    def test_a_catalog_that_is_away_is_no_absence(self) -> None:
        """The client gets an error, not a list of absent paths."""
        self.catalog.failing = Unavailable("away")
        self.refused(self.bulk.query([digest_of(1)], ask=True), Unavailable)

    def test_a_narinfo_that_no_key_vouches_for_now_is_not_told(self) -> None:
        """The answers are the same as for a request of the narinfo."""
        one: Sample = self.samples[0]
        self.origin.add(one)
        self.learn(one)
        self.memory.clear()  # like a reload of the keys
        self.vetting.trusted.replace([SecretKey.generate("other.example.org-1").public])
        self.assertEqual([Where.UNKNOWN], self.where(one.digest))

    def test_a_path_whose_nar_arrives_is_said_to(self) -> None:
        """Its state changes when the download ends."""
        one = self.samples[0]
        self.origin.add(one)
        self.learn(one)
        self.origin.scripts.append(Script(hold=True))
        opened = self.open(one.key)
        self.assertEqual([Where.ARRIVING], self.where(one.digest))
        self.origin.release()
        _, client = self.successResultOf(opened)
        self.successResultOf(client.done)
        self.assertEqual([Where.STORED], self.where(one.digest))

    def test_thousands_are_read_in_batches(self) -> None:
        """10,000 unknown paths cost 100 reads of the catalog and no question to an upstream."""
        reads: list[int] = []
        among = self.catalog.narinfos_among

        async def counted(
            digests: list[str],
        ) -> dict[str, tuple[NarInfoEntry, NarRecord] | None]:
            reads.append(len(digests))
            return await among(digests)

        self.patch(self.catalog, "narinfos_among", counted)
        digests = [digest_of(number) for number in range(10_000)]
        self.assertEqual(10_000, len(self.query(*digests)))
        self.assertEqual([100] * 100, reads)
