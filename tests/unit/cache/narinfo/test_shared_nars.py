"""Narinfos that share a NAR, or disagree about it."""

from __future__ import annotations

from unittest import mock

from attrs import evolve

from ncps.aio.clocks import utc_now
from ncps.cache.narinfo.record import REFRESH_S
from ncps.cache.narinfo.verify import NarInfoVerifier
from ncps.nix.hashes import sha256_of
from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import NarKey, opaque_key
from ncps.nix.references import References
from ncps.ports import NarInfoEntry, NarRecord
from tests.fakes.metrics import counted
from tests.fakes.samples import sample, signed
from tests.fakes.threads import NotingThreads
from tests.unit.cache.narinfo.rig import NarInfosCase


class SharedNarTests(NarInfosCase):
    def test_second_narinfo_of_a_stored_nar_gets_its_sidecar(self) -> None:
        """A path whose NAR is stored already gets a sidecar immediately."""
        self.served()
        self.store_it()
        other = sample("other", 10)
        twin = evolve(self.sample.narinfo, store_path=other.narinfo.store_path)
        self.origin.narinfos[other.digest] = signed(twin)
        self.get(self.narinfos.get(other.digest))
        self.assertIn(other.digest, self.sidecars.texts)

    def test_withdrawn_narinfos_are_gone_everywhere(self) -> None:
        """A narinfo that was found wrong is no longer shown by any process."""
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
        """Return the same NAR under a URL without a hash, with another file."""
        altered = self.sample.altered(
            url="https://cdn/some/uuid", file_hash=sha256_of(file), file_size=len(file)
        )
        return altered.narinfo

    def test_other_file_of_a_stored_nar_is_described_as_stored(self) -> None:
        """If an upstream compresses again, the narinfo describes the file that clients get."""
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

    def test_other_file_of_a_stored_nar_that_was_not_verified(self) -> None:
        """The stored file may be wrong: the other file gets another name of the same NAR."""
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
        """If a URL is known for another NAR, the path's own NAR is named by its NarHash."""
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
        """Of two NarHashes of one path the stored and verified one wins; both are noted."""
        self.served()
        different = self.sample.altered(nar_hash=sha256_of(b"different"))
        self.origin.narinfos[self.digest] = different.narinfo
        self.clock.advance(REFRESH_S)
        newer = NarInfo.parse(self.served().text)
        self.assertEqual(
            (different.narinfo.nar_hash, 1), (newer.nar_hash, counted(self.metrics.disagreements))
        )

    def test_stored_and_verified_one_holds(self) -> None:
        """If the NAR was stored while another upstream was asked, its narinfo wins."""
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
        self.assertEqual(
            (self.sample.narinfo.nar_hash, 1), (told.nar_hash, counted(self.metrics.disagreements))
        )
        self.assertIsNotNone(self.get(first(self.digest)))

    def test_what_holds_is_judged_in_a_thread(self) -> None:
        """A narinfo with many references is judged in a thread, because signatures are slow."""
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
        """Another upstream has the same NAR by NarHash and compression, whatever its file."""
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
