"""Rebuild: a catalog made from the store alone."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import Deferred

from ncps.cache.narinfo.proof import Proofs
from ncps.cache.upkeep.rebuild import Nameless, Rebuild, RebuildTally
from ncps.errors import Unavailable
from tests.fakes.samples import Sample, file_sample, sample, tree_sample
from tests.unit.cache.rig import CoreCase

SIZE = 400_000


class RebuildTests(CoreCase):
    def setUp(self) -> None:
        super().setUp()
        self.samples = [sample(name, 50_000) for name in "abc"]
        self.origin.add(*self.samples)
        self.learn(*self.samples)
        for one in self.samples:
            self.download(one.key)
        self.texts = {
            one.digest: self.get(self.narinfos.get(one.digest)).text for one in self.samples
        }
        self.catalog = type(self.catalog)()
        self.restart()
        self.origin.log.clear()

    def rebuild(self) -> RebuildTally:
        return self.get(self.new_rebuild().run())

    def new_rebuild(self) -> Rebuild:
        return Rebuild(
            self.world,
            adoption=self.adoption,
            vetting=self.vetting,
            proofs=Proofs(
                clock=self.clock,
                workers=self.threads,
                vetting=self.vetting,
                fetch=self.adoption.open,
            ),
        )

    def served(self, one: Sample) -> bytes:
        return self.get(self.narinfos.get(one.digest)).text

    def test_lost_catalog_is_made_again(self) -> None:
        """After the loss of its database the cache is as before, without a question upstream."""
        self.assertEqual(RebuildTally(narinfos=3, nars=3), self.rebuild())
        for one in self.samples:
            self.assertEqual(self.texts[one.digest], self.served(one))
            self.assertEqual(one.file, self.download(one.key))
        self.assertEqual([], self.origin.log)
        self.assertEqual(RebuildTally(narinfos=3), self.rebuild())

    def test_nars_without_a_narinfo_are_counted(self) -> None:
        """Objects that the catalog has are ignored; the others are counted."""
        first, second, _ = self.samples
        for digest in (first.digest, second.digest):
            del self.sidecars.texts[digest]
        self.rebuild()
        nameless = Nameless(count=2, size=len(first.file) + len(second.file))
        self.assertEqual(nameless, self.get(self.new_rebuild().nameless()))
        self.assertEqual(first.file, self.download(first.key))
        nameless = Nameless(count=1, size=len(second.file))
        self.assertEqual(nameless, self.get(self.new_rebuild().nameless()))

    def test_broken_pieces_are_passed_over(self) -> None:
        """A wrong narinfo or NAR in the store is logged and left out; the rest is recorded."""
        first, second, third = self.samples
        del self.store.objects[first.key]
        self.store.objects[second.key] = b"wrong"
        self.sidecars.texts[third.digest] = b"<html>"
        self.sidecars.texts["0" * 32] = self.sidecars.texts[first.digest]
        self.assertEqual(RebuildTally(narinfos=2, without_bytes=2, refused=2), self.rebuild())

    def test_text_that_vanishes_is_no_trouble(self) -> None:
        """A narinfo that is deleted during the rebuild is not counted."""

        async def gone(_: str) -> None:
            return None

        self.patch(self.sidecars, "get", gone)
        self.assertEqual(RebuildTally(), self.rebuild())

    def test_store_that_fails_ends_it(self) -> None:
        """A store that cannot be read ends the rebuild, which can be run again."""
        self.store.failing = Unavailable("EIO")
        self.failureResultOf(Deferred.fromCoroutine(self.new_rebuild().run()), Unavailable)

    def test_sidecar_of_an_untrusted_key_is_refused(self) -> None:
        """The store is not trusted more than an upstream."""
        self.vetting = evolve(
            self.vetting,
            trusted=(evolve(self.vetting.trusted[0], name="x"),),
        )
        self.assertEqual(RebuildTally(refused=3), self.rebuild())

    def lost(self, one: Sample) -> None:
        """Record and fetch a path, and lose the catalog."""
        self.origin.add(one)
        self.texts[one.digest] = self.get(self.narinfos.get(one.digest)).text
        self.download(one.key)
        self.catalog = type(self.catalog)()
        self.restart()
        self.origin.log.clear()

    def test_unsigned_paths_survive(self) -> None:
        """A content address is proved again, from the bytes in the store."""
        for one in (file_sample("hello"), tree_sample("tree"), file_sample("raw", "none")):
            self.lost(one)
        self.assertEqual(RebuildTally(narinfos=6, nars=6), self.rebuild())
        for digest, text in self.texts.items():
            self.assertEqual(text, self.get(self.narinfos.get(digest)).text)
        self.assertEqual([], self.origin.log)

    def test_other_bytes_prove_nothing(self) -> None:
        """A sidecar with a content address is refused if the NAR beside it is another."""
        one, other = file_sample("hello"), file_sample("other")
        self.lost(one)
        self.store.objects[one.key] = other.file
        self.assertEqual(RebuildTally(narinfos=3, nars=3, refused=1), self.rebuild())
        self.assertEqual(other.file, self.store.objects[one.key])
        del self.store.objects[one.key]
        self.assertEqual(RebuildTally(narinfos=3, refused=1), self.rebuild())
