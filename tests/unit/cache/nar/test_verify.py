"""Stored NARs that are read again: right, damaged, replaced, missing, or another NAR."""

from __future__ import annotations

from attrs import evolve

from ncps.errors import Corrupt, NotFound, Unavailable
from ncps.nix.hashes import sha256_of
from ncps.nix.judge import Look
from ncps.nix.narinfo import NarInfo
from ncps.ports import NarRecord
from ncps.ports.catalog import WRONG_S
from tests.fakes.samples import Sample, sample
from tests.unit.cache.rig import CoreCase

SIZE = 300_000


class VerifierCase(CoreCase):
    inner_look = Look.IF_CHEAP

    def setUp(self) -> None:
        super().setUp()
        self.sample = sample(size=SIZE)
        self.key = self.sample.key
        self.origin.add(self.sample)

    def stored(self) -> NarRecord:
        """Let the NAR be stored; return its row."""
        self.learn(self.sample)
        self.download(self.key)
        return self.catalog.records[self.key]

    def asked(self) -> int:
        """Number of requests for NARs to the first upstream."""
        return len(self.origin.asked("nar"))


class ReplacedTests(VerifierCase):
    """Another object lies under the key of a stored NAR."""

    def test_other_bytes_of_the_same_size_are_never_served(self) -> None:
        """Other bytes are set aside, and the right ones fetched."""
        self.stored()
        wrong = bytes(len(self.sample.file))
        self.store.put(self.key, wrong)
        self.assertEqual(self.sample.file, self.download(self.key))
        self.assertEqual([(self.key, wrong)], self.store.quarantined)
        self.assertEqual(self.sample.file, self.store.objects[self.key])
        self.assertEqual({"damaged": 1}, self.verified)
        self.assertEqual(2, self.asked())

    def test_the_same_bytes_once_more_are_served(self) -> None:
        """After the store was restored, the bytes are read once, and not downloaded."""
        record = self.stored()
        self.get(self.catalog.mark_stored(evolve(record, stored_tag="of before")))
        for _ in range(2):
            self.assertEqual(self.sample.file, self.download(self.key))
        self.assertEqual(self.store.tag(self.key), self.catalog.records[self.key].stored_tag)
        self.assertIsNone(self.catalog.records[self.key].verified_at)
        self.assertEqual(1, self.asked())

    def test_a_row_of_before_there_were_tags_is_verified(self) -> None:
        """Bytes without a tag in their row are read before they are served."""
        record = self.stored()
        self.get(self.catalog.mark_stored(evolve(record, stored_tag="")))
        self.store.objects[self.key] = bytes(len(self.sample.file))
        self.assertEqual(self.sample.file, self.download(self.key))
        self.assertEqual({"damaged": 1}, self.verified)

    def test_a_file_that_cannot_be_set_aside_is_replaced(self) -> None:
        """If the quarantine fails, the right bytes replace the wrong ones in place."""
        self.stored()
        self.store.put(self.key, bytes(len(self.sample.file)))

        async def failing(_: object) -> bool:
            raise Unavailable("EIO")

        self.patch(self.store, "quarantine", failing)
        self.assertEqual(self.sample.file, self.download(self.key))
        self.assertEqual(self.sample.file, self.store.objects[self.key])

    def test_a_store_that_cannot_be_read_says_nothing(self) -> None:
        """A store that cannot tell changes nothing."""
        record = self.stored()
        self.store.failing = Unavailable("EIO")
        self.refused(self.verifier.verify(record), Unavailable)
        self.store.failing = None
        self.assertEqual(record, self.catalog.records[self.key])

    def test_missing_bytes_are_noted(self) -> None:
        """If an object is gone, the row says so afterwards."""
        record = self.stored()
        self.store.objects.clear()
        self.assertIsNone(self.get(self.verifier.verify(record)))
        self.assertEqual({"missing": 1}, self.verified)
        self.assertFalse(self.catalog.records[self.key].is_stored)

    def test_what_is_stored_meanwhile_is_left_alone(self) -> None:
        """A finding about bytes that are gone does not apply to the bytes that replaced them."""
        record = self.stored()
        later = evolve(record, stored_tag="another", stored_at=self.catalog.made_at)
        self.get(self.catalog.mark_stored(later))
        self.assertEqual(later, self.get(self.verifier.verify(record)))
        self.assertIsNone(self.catalog.records[self.key].verified_at)


class EagerTests(VerifierCase):
    """A file is found to hold another NAR while it arrives."""

    inner_look = Look.ALWAYS

    def test_it_is_known_from_then_on(self) -> None:
        """Its pair of hashes is not believed again; another upstream sends the right file."""
        wrong = sample("wrong", 1000)
        file = wrong.narinfo
        told = self.sample.altered(
            url="nar/some-uuid", file_hash=file.file_hash, file_size=file.file_size
        )
        self.origin.add(evolve(told, file=wrong.file))
        self.learn(self.sample)
        self.failureResultOf(self.open(self.key), Corrupt)
        self.assertEqual({(told.narinfo.nar_hash, file.file_hash)}, set(self.catalog.wrong))
        self.restart()
        self.refused(self.narinfos.get(self.sample.digest), Corrupt)
        self.mirror.add(self.sample)
        self.learn(self.sample)
        self.assertEqual(self.sample.file, self.download(self.key))
        self.assertEqual({}, dict(self.store.quarantined))


class WrongNarTests(VerifierCase):
    """The upstream's file has the hash that its narinfo says, and another NAR inside."""

    def setUp(self) -> None:
        super().setUp()
        self.wrong = sample("wrong", SIZE)
        self.lie()

    def lie(self) -> None:
        """Let the first upstream serve the wrong file under a well-signed narinfo."""
        file = self.wrong.narinfo
        told = self.sample.altered(
            url="nar/some-uuid", file_hash=file.file_hash, file_size=file.file_size
        )
        self.told: Sample = evolve(told, file=self.wrong.file)
        self.origin.add(self.told)

    def found(self) -> None:
        """Let the wrong file be stored and verified."""
        self.assertEqual(self.wrong.file, self.download_of(self.told))
        self.assertIsNone(self.get(self.verifier.verify(self.catalog.records[self.key])))
        self.assertEqual({"wrong": 1}, self.verified)

    def download_of(self, of: Sample) -> bytes:
        self.learn(of)
        return self.download(self.key)

    def test_it_is_set_aside_and_stays_known(self) -> None:
        """Its narinfo is withdrawn, and not signed or served again, also not after a restart."""
        self.found()
        self.assertEqual([(self.key, self.wrong.file)], self.store.quarantined)
        self.assertNotIn(self.key, self.catalog.records)
        self.assertEqual({}, self.sidecars.texts)
        for _ in range(2):
            self.refused(self.narinfos.get(self.sample.digest), Corrupt)
            self.failureResultOf(self.open(self.key), NotFound)
            self.restart()
        self.assertEqual(1, [url for url, _ in self.origin.asked("nar")].count(self.told.url))

    def test_it_is_tried_again_after_some_weeks(self) -> None:
        """A wrong pair of hashes is not remembered for ever."""
        self.found()
        self.clock.advance(WRONG_S + 1)
        self.restart()
        self.assertEqual(self.wrong.file, self.download_of(self.told))

    def test_another_upstream_has_the_right_one(self) -> None:
        """A client with the narinfo gets the NAR under the same URL, immediately."""
        self.mirror.add(self.sample)
        self.found()
        self.assertEqual(self.sample.file, self.download(self.key))
        told = NarInfo.parse(self.get(self.narinfos.get(self.sample.digest)).text)
        self.assertEqual((self.key.url, sha256_of(self.sample.file)), (told.url, told.file_hash))

    def test_a_narinfo_with_a_wrong_size_does_not_spoil_the_file_for_others(self) -> None:
        """If only NarSize is wrong, NarHash and FileHash belong together."""
        self.setUp()
        told = self.sample.altered(nar_size=len(self.sample.nar) + 1)
        self.origin.add(evolve(told, file=self.sample.file))
        self.mirror.add(self.sample)
        self.learn(self.sample)
        self.download(self.key)
        self.assertIsNone(self.get(self.verifier.verify(self.catalog.records[self.key])))
        self.assertEqual({"wrong": 1}, self.verified)
        self.assertEqual({}, self.catalog.wrong)
        self.assertEqual(self.sample.file, self.download(self.key))

    def test_a_file_with_a_name_of_its_own_stays(self) -> None:
        """The file is right by that name, even if a narinfo promised another NAR inside."""
        key = self.wrong.conventional
        self.origin.add(self.wrong)
        self.download(key)
        record = evolve(
            self.catalog.records[key],
            compression="xz",
            nar_hash=self.sample.narinfo.nar_hash,
            nar_size=len(self.sample.nar),
        )
        self.get(self.catalog.mark_stored(record))
        kept = self.get(self.verifier.verify(record))
        assert kept is not None
        self.assertEqual(self.wrong.narinfo.nar_hash, kept.nar_hash)
        self.assertEqual([], self.store.quarantined)
        self.assertEqual(self.wrong.file, self.download(key))
