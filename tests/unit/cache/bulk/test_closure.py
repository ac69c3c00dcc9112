"""The closure of a path in one answer."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from ncps.cache.answers import Absent
from ncps.cache.bulk import answers
from ncps.cache.bulk.answers import Closure, ClosurePath, Where
from ncps.cache.bulk.bulk import AT_ONCE, BulkQuestions
from ncps.cache.bulk.closure import FETCH_S
from ncps.errors import Busy, Unavailable
from tests.contract.samples import digest_of
from tests.fakes.samples import Sample, sample
from tests.unit.cache.rig import CoreCase


def chain(count: int) -> list[Sample]:
    """Make paths of which each needs itself and the two after it."""
    plain = [sample(f"c{number}", size=500) for number in range(count)]
    paths = [each.narinfo.store_path for each in plain]
    return [each.altered(references=tuple(paths[at : at + 3])) for at, each in enumerate(plain)]


class ClosureTests(CoreCase):
    def setUp(self) -> None:
        super().setUp()
        self.bulk = BulkQuestions(self.world, self.core, self.narinfos.get)
        self.chain = chain(6)
        self.root = self.chain[0].digest

    def open(self, digest: str, *, fetch: bool = False) -> Closure:  # type: ignore[override]
        return self.get(self.bulk.closure(digest, fetch=fetch))

    def read(self, digest: str, *, fetch: bool = False) -> Sequence[ClosurePath]:
        closure = self.open(digest, fetch=fetch)
        paths: list[ClosurePath] = []
        while more := self.get(closure.more()):
            paths += more
        closure.close()
        return paths

    def test_every_path_once_with_its_narinfo(self) -> None:
        """The narinfos are the served ones, the nearest paths first."""
        for each in self.chain:
            self.origin.add(each)
        self.learn(*self.chain)
        found = self.read(self.root)
        self.assertEqual([each.digest for each in self.chain], [path.digest for path in found])
        served = [self.get(self.narinfos.get(each.digest)).text for each in self.chain]
        self.assertEqual(served, [path.narinfo for path in found])
        self.assertEqual({Where.UPSTREAM}, {path.where for path in found})

    def test_a_missing_path_is_named(self) -> None:
        """Its name is known from the path that needs it; its own references are not listed."""
        for each in self.chain[:3]:
            self.origin.add(each)
        self.learn(*self.chain[:3])
        found = self.read(self.root)
        missing = [path for path in found if not path.narinfo]
        bases = [each.narinfo.store_path.base for each in self.chain[3:5]]
        self.assertEqual(bases, [path.base for path in missing])
        self.assertEqual({Where.UNKNOWN}, {path.where for path in missing})
        self.assertEqual(5, len(found))

    def test_missing_narinfos_are_fetched_level_by_level(self) -> None:
        """With `fetch` the whole closure is found, and a path that no upstream has is absent."""
        for each in self.chain[:5]:
            self.origin.add(each)
        found = self.read(self.root, fetch=True)
        self.assertEqual([each.digest for each in self.chain], [path.digest for path in found])
        self.assertEqual([True] * 5 + [False], [path.narinfo != b"" for path in found])
        self.assertEqual(Where.ABSENT, found[-1].where)

    def test_a_root_that_is_not_here_is_not_found(self) -> None:
        """Its absence is certain only if upstreams have said so."""
        unsure = self.refused(self.bulk.closure(self.root, fetch=False), Absent)
        sure = self.refused(self.bulk.closure(self.root, fetch=True), Absent)
        self.assertEqual((False, True), (unsure.is_certain, sure.is_certain))

    def test_a_closure_that_is_too_large_is_cut(self) -> None:
        """The reader learns that paths were left out."""
        self.patch(answers, "MOST_PATHS", 4)
        for each in self.chain:
            self.origin.add(each)
        closure = self.open(self.root, fetch=True)
        paths: list[ClosurePath] = []
        while more := self.get(closure.more()):
            paths += more
        closure.close()
        self.assertEqual((4, True), (len(paths), closure.is_cut))

    def test_a_silent_upstream_costs_no_more_than_the_deadline(self) -> None:
        """After the deadline no upstream is asked; the rest of the closure is unknown."""
        self.origin.add(self.chain[0])
        self.learn(self.chain[0])
        self.origin.is_silent = self.mirror.is_silent = True
        closure = self.open(self.root, fetch=True)
        self.assertEqual(1, len(self.get(closure.more())))
        rest = self.start(closure.more())
        self.assertNoResult(rest)
        self.clock.advance(FETCH_S)
        found = self.successResultOf(rest)
        self.assertEqual([Where.UNKNOWN] * 2, [path.where for path in found])
        self.assertEqual([], list(self.get(closure.more())))
        closure.close()
        self.origin.release()
        self.mirror.release()

    def test_closures_at_once_are_bounded(self) -> None:
        """A closed one frees its place, also if it is closed twice."""
        self.origin.add(self.chain[0])
        self.learn(self.chain[0])
        open_ = [self.open(self.root) for _ in range(AT_ONCE)]
        self.get(self.bulk.query([self.root], ask=False))  # closures have places of their own
        waiting = self.start(self.bulk.closure(self.root, fetch=False))
        self.assertNoResult(waiting)
        open_[0].close()
        open_[0].close()
        self.successResultOf(waiting).close()
        late = [self.start(self.bulk.closure(self.root, fetch=False)) for _ in range(2)]
        self.successResultOf(late[0])
        self.assertNoResult(late[1])
        self.clock.advance(30)
        self.failureResultOf(late[1], Busy)

    def test_a_catalog_that_goes_away_ends_it_with_an_error(self) -> None:
        """Only a complete closure ends without an error."""
        for each in self.chain:
            self.origin.add(each)
        self.learn(*self.chain)
        closure = self.open(self.root)
        self.get(closure.more())
        self.catalog.failing = Unavailable("away")
        self.refused(closure.more(), Unavailable)
        closure.close()
        self.refused(self.bulk.closure(self.root, fetch=False), Unavailable)
        self.catalog.failing = None
        self.assertEqual(6, len(self.read(self.root)))

    def test_a_circle_of_references_ends(self) -> None:
        """Two paths that need each other are listed once each."""
        one, two = self.chain[:2]
        paths = (one.narinfo.store_path, two.narinfo.store_path)
        for each in (one, two):
            self.origin.add(each.altered(references=paths))
        self.assertEqual(2, len(self.read(one.digest, fetch=True)))

    def test_a_narinfo_of_many_references_is_listed(self) -> None:
        """Long narinfos are read one by one."""
        many = [evolve(self.chain[1].narinfo.store_path, digest=digest_of(n)) for n in range(1500)]
        long = self.chain[0].altered(references=tuple(many))
        self.origin.add(long)
        self.learn(long)
        found = self.read(self.root)
        self.assertEqual(1501, len(found))
        self.assertIn(digest_of(1499).encode(), found[0].narinfo)
