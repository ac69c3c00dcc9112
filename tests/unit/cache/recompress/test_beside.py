"""Twins and the other verbs: uploads, eviction, removal, and another process."""

from __future__ import annotations

from functools import partial

from attrs import evolve

from ncps.cache.narinfo.record import parse_making
from ncps.cache.write.verbs import UploadOutcome
from ncps.errors import NotFound
from ncps.ports import Lease
from tests.fakes.samples import packed
from tests.unit.cache.closures.rig import ClosuresCase
from tests.unit.cache.recompress.rig import TwinCase
from tests.unit.cache.write.rig import CLIENT, UPLOAD_KEY, UploadCase


class UploadTests(TwinCase, UploadCase):
    def test_a_signature_is_added(self) -> None:
        """After a client has signed the narinfo, the sidecar still says how the file was made."""
        self.run_work()
        told = self.told(self.one)
        signed = evolve(told, signatures=(*told.signatures, UPLOAD_KEY.sign(told.fingerprint())))
        putting = self.uploads.put_narinfo(self.one.digest, signed.render(), CLIENT)
        self.assertEqual(UploadOutcome.MERGED, self.get(putting))
        text = self.sidecars.texts[self.one.digest]
        self.assertIn(b"builder-1:", text)
        self.assertEqual((self.one.key.file_name, 3), parse_making(text))


class RaceTests(TwinCase):
    def test_twin_goes_before_its_lease(self) -> None:
        """A twin that is removed before its lease is held is made again: no row lacks its bytes."""
        self.run_work()
        key = self.twin_key(self.one)
        self.get(self.world.twins.part(key))
        hold = self.leases.try_hold

        async def removed_first(name: str) -> Lease | None:
            if key in self.store.objects:
                self.lose(key)
            return await hold(name)

        self.patch(self.leases, "try_hold", removed_first)
        self.run_work()
        self.assertEqual({"made": 2}, self.outcomes)
        self.assertIn(key, self.store.objects)
        self.assertTrue(self.row(key).is_stored)

    def test_original_goes_before_its_turn(self) -> None:
        """A NAR that is evicted while another twin is made is not fetched for a twin of its own."""
        two = packed("two", b"some contents of two " * 5000, "xz")
        self.keep(two)
        self.clock.advance(10)
        asked = len(self.origin.log)

        def evict() -> None:
            if two.key in self.store.objects:
                self.lose(two.key)

        self.transcoder.meddle = evict
        self.run_work()
        self.assertEqual(1, len(self.transcoder.orders))
        self.assertEqual(asked, len(self.origin.log))


class RemovalTests(TwinCase, ClosuresCase):
    def test_both_files_go(self) -> None:
        """A removed path leaves no bytes, and no row for its old URL."""
        self.run_work()
        report = self.remove(self.one)
        self.assertEqual({}, self.store.objects)
        self.assertEqual({}, self.catalog.records)
        self.assertGreater(report.size, len(self.one.file))

    def test_original_is_being_fetched(self) -> None:
        """A path is busy while another process fetches its original."""
        self.run_work()
        lease = self.get(self.leases.try_hold(f"download:nar:{self.one.key.file_name}"))
        assert lease is not None
        self.assertEqual((self.one.digest,), self.remove(self.one).busy)
        self.get(lease.release())
        self.assertEqual((), self.remove(self.one).busy)

    def test_path_goes_while_its_twin_is_made(self) -> None:
        """The new file goes, too: nothing names it, and its path was removed."""
        self.transcoder.meddle = lambda: self.remove(self.one)
        self.run_work()
        self.assertEqual((1, {"taken": 1}), (len(self.transcoder.orders), self.outcomes))
        self.assertEqual({}, self.store.objects)
        self.assertEqual({}, self.catalog.records)

    def test_path_is_blocked_while_its_twin_is_made(self) -> None:
        """No file of a blocked path stays in the store."""
        self.transcoder.meddle = lambda: self.remove(self.one, never_again=True)
        self.run_work()
        self.assertEqual(({}, {"taken": 1}), (self.store.objects, self.outcomes))

    def test_bytes_go_while_a_twin_is_made(self) -> None:
        """DELETE removes a NAR in all its compressions. A NAR that comes back gets its twin."""
        self.transcoder.meddle = lambda: self.get(self.removing.delete_nar(self.one.key))
        self.run_work()
        self.assertEqual(({}, {"taken": 1}), (self.store.objects, self.outcomes))
        self.transcoder.meddle = lambda: None
        self.assertEqual(self.one.file, self.download(self.one.key))
        self.clock.advance(10)
        self.run_work()
        self.assertEqual({"taken": 1, "made": 1}, self.outcomes)

    def test_another_lease_wins(self) -> None:
        """A twin that another process has stored under a later lease stays; there is no error."""
        self.run_work()
        twin = self.row(self.twin_key(self.one))
        self.get(self.world.twins.part(twin.key))
        self.get(self.catalog.mark_missing(twin.key))

        def win() -> None:
            self.get(self.catalog.mark_stored(twin, 1000))

        self.transcoder.meddle = win
        self.run_work()
        self.assertEqual({"made": 1, "busy": 1}, self.outcomes)
        self.assertIn(twin.key, self.store.objects)

    def test_path_goes_while_its_twin_is_made_again(self) -> None:
        """The client gets nothing, and neither a row nor bytes come back."""
        for never_again in (False, True):
            two = packed(f"two-{never_again}", b"some contents of two " * 5000, "xz")
            self.keep(two)
            self.clock.advance(10)
            self.run_work()
            key = self.twin_key(two)
            self.lose(key)
            self.assertEqual(two.key.url, self.told(two).url)
            self.transcoder.meddle = partial(self.remove, two, never_again=never_again)
            self.failureResultOf(self.open(key), NotFound)
            self.clock.advance(0)
            self.transcoder.meddle = lambda: None
            self.assertNotIn(key, self.catalog.records)
            self.assertNotIn(key, self.store.objects)

    def test_another_lease_wins_again(self) -> None:
        """A lost twin that another process has stored meanwhile is answered from the store."""
        self.run_work()
        twin = self.row(self.twin_key(self.one))
        data = self.download(twin.key)
        self.lose(twin.key)

        def win() -> None:
            self.store.put(twin.key, data)
            tag = self.store.tag(twin.key)
            self.get(self.catalog.mark_stored(evolve(twin, stored_tag=tag), 1000))

        self.transcoder.meddle = win
        self.assertEqual(data, self.download(twin.key))


class SidecarTests(TwinCase):
    def test_twin_is_evicted(self) -> None:
        """Its sidecar goes with it. The narinfo names the original again, which gets a sidecar."""
        self.run_work()
        self.lose(self.twin_key(self.one))
        self.get(self.sidecars.delete(self.one.digest))
        self.told(self.one)
        text = self.sidecars.texts[self.one.digest]
        self.assertIn(b"Compression: xz", text)
        self.assertEqual(("", 0), parse_making(text))


class ConventionalTests(TwinCase):
    def test_file_of_the_original_is_no_twin(self) -> None:
        """ncps does not search for a lost twin under the upstream's name for the original."""
        self.run_work()
        data = self.download(self.twin_key(self.one))
        self.lose(self.twin_key(self.one))
        self.store.put(self.one.conventional, self.one.file)
        self.assertEqual(data, self.download(self.twin_key(self.one)))
        self.assertEqual(0, len(self.core.adoption._unvouched))
