"""A file that arrived is stored, or only passed on: full disks, many downloads, old fences."""

from __future__ import annotations

import os
from typing import Any

from ncps.aio.spool import WINDOW_HIGH
from ncps.cache.answers import Outcome
from ncps.errors import Busy, StorageFull, Unavailable
from ncps.nix.narurl import NarKey
from tests.fakes.samples import sample
from tests.fakes.spoolfile import full_after
from tests.fakes.upstream import Script
from tests.unit.cache.nar.rig import SIZE, NarsCase
from tests.unit.cache.rig import PATIENCE_S


class AdmissionTests(NarsCase):
    def second(self) -> NarKey:
        """Another NAR that could be fetched."""
        other = sample("other", SIZE)
        self.origin.add(other)
        self.learn(other)
        return other.key

    def test_one_download_too_many_is_turned_away(self) -> None:
        """Clients of another NAR must come back later; those of an arriving one are served."""
        self.most_downloads = 1
        self.restart()
        other = self.second()
        self.script(Script(stall_at=100_000))
        first = self.client(self.key)
        self.assertIsNone(self.refused(self.nars.open(other), Busy).retry_after)
        joined = self.client(self.key)
        self.origin.release()
        for client in (first, joined):
            self.successResultOf(client.done)
        self.assertStored()
        self.download(other)
        self.assertEqual({"cache-download-max-count": 1}, self.reached)

    def test_download_waits_for_spools_to_be_published(self) -> None:
        """A download without a place asks no upstream yet, and continues when it gets one."""
        self.most_spooled = SIZE
        self.restart()
        other = self.second()
        self.script(Script(stall_at=100_000))
        first = self.client(self.key)
        waiting = self.open(other)
        self.assertNoResult(waiting)
        self.assertEqual(1, len(self.asked()))
        self.origin.release()
        self.successResultOf(first.done)
        self.successResultOf(self.successResultOf(waiting)[1].done)
        self.assertEqual({"published": 2}, self.ended)

    def test_download_waits_in_vain_for_so_long(self) -> None:
        """Its clients must come back later; the downloads before it continue."""
        self.most_spooled = SIZE
        self.restart()
        other = self.second()
        self.script(Script(stall_at=100_000))
        first = self.client(self.key)
        waiting = self.open(other)
        self.clock.advance(PATIENCE_S)
        self.failureResultOf(waiting, Busy)
        self.assertEqual({"cache-download-max-spool-size": 1}, self.reached)
        self.origin.release()
        self.successResultOf(first.done)
        self.assertStored(failed=1)
        self.download(other)

    def test_short_of_space_streams_through(self) -> None:
        """If less space is free than the reserve, clients get all bytes, and nothing is kept."""
        self.free = len(self.sample.file) + 999
        client = self.begun(self.key, script=Script(hold=True))
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file, client.data)
        self.assertNotStored()
        self.assertEqual(({"unkept": 1}, []), (self.ended, self.files))
        self.assertEqual({"cache-storage-min-free": 1}, self.reached)
        self.free += 1
        self.download(self.key)
        self.assertStored(unkept=1)

    def test_each_stored_nar_is_told(self) -> None:
        """The eviction learns of each stored NAR, and of no other."""
        told: list[dict[str, float]] = []
        self.core.publication.watch(lambda: told.append(self.ended))
        self.free = 0
        self.successResultOf(self.begun(self.key, script=Script(hold=True)).done)
        self.assertEqual(({"unkept": 1}, []), (self.ended, told))
        self.free = 10**12
        self.download(self.key)
        self.assertEqual([{"unkept": 1, "published": 1}], told)

    def test_nar_larger_than_the_store_is_fetched_once_while_it_flows(self) -> None:
        """Such a NAR is not kept; clients that come during its download get it from the start."""
        self.admission._largest = 1000
        self.script(Script(stall_at=100_000))
        first = self.client(self.key)
        late, part = self.client(self.key), self.client(self.key, 50_000)
        self.assertEqual(first.data, late.data)
        self.origin.release()
        for client, start in ((first, 0), (late, 0), (part, 50_000)):
            self.successResultOf(client.done)
            self.assertEqual(self.sample.file[start:], client.data)
        self.assertNotStored()
        self.assertEqual(([0], {"unkept": 1}), (self.asked(), self.ended))
        self.assertEqual({"cache-max-size": 1}, self.reached)

    def test_upstreams_busy_by_us_are_told_as_such(self) -> None:
        """If ncps waits in vain for a place at an upstream, the upstream's health is the same."""
        self.script(Script(error=Busy("waited")), Script(error=Busy("waited")))
        opening = self.open(self.key)
        self.clock.pump([1, 1, 1])
        self.failureResultOf(opening, Unavailable)
        self.assertTrue(all(c.health.is_healthy for c in self.upstreams.candidates))
        self.download(self.key)


class FenceTests(NarsCase):
    """Rows that were stored under a lease with a number from the future: a clock was wrong."""

    def setUp(self) -> None:
        super().setUp()
        self.download(self.key)
        self.get(self.catalog.mark_stored(self.record(), 10**18))

    def test_fetched_nars_are_adopted_immediately(self) -> None:
        """If no later holder has stored it, its bytes get their row immediately."""
        self.get(self.catalog.mark_missing(self.key))
        self.store.objects.clear()
        self.narinfos.changed(self.key)
        told: list[dict[str, float]] = []
        self.core.publication.watch(lambda: told.append(self.ended))
        self.download(self.key)
        self.assertStored(published=1)
        self.assertEqual(([], [{"published": 2}]), (self.get_orphans(), told))
        self.origin.is_away = True
        hit, again = self.successResultOf(self.open(self.key))
        self.successResultOf(again.done)
        self.assertEqual((Outcome.HIT, self.sample.file), (hit.outcome, again.data))

    def get_orphans(self) -> list[NarKey]:
        stored = {key for key, record in self.catalog.records.items() if record.is_stored}
        return [key for key in self.store.objects if key not in stored]


class FullDiskTests(NarsCase):
    def test_no_room_for_a_file_streams_through(self) -> None:
        """Also on a full disk clients get their bytes; nothing is marked as stored."""
        self.is_full = True
        client = self.begun(self.key, script=Script(hold=True))
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file, client.data)
        self.assertNotStored()
        self.assertEqual({"unkept": 1}, self.ended)

    def test_disk_that_fills_up_on_the_way(self) -> None:
        """The same if the disk becomes full in mid-file."""
        self.patch(os, "pwrite", full_after(100_000))
        client = self.begun(self.key, script=Script(hold=True))
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file, client.data)
        self.assertNotStored()

    def test_store_full_on_publish(self) -> None:
        """If only the publication fails, clients have their bytes already; nothing is marked."""
        for times, trouble in enumerate((StorageFull("quota"), Unavailable("EIO")), 1):
            self.store.failing = None
            self.script(Script(stall_at=100_000))
            client = self.client(self.key)
            self.store.failing = trouble
            self.origin.release()
            self.successResultOf(client.done)
            self.assertEqual(self.sample.file, client.data)
            self.assertEqual({"unkept": times}, self.ended)
            self.assertNotStored()

    def test_catalog_that_fails_after_publication(self) -> None:
        """Bytes without a row do no harm: the next request adopts them."""
        self.script(Script(stall_at=100_000))
        client = self.client(self.key)
        self.catalog.failing_writes = Unavailable("locked")
        self.origin.release()
        self.successResultOf(client.done)
        self.assertFalse(self.record().is_stored)
        self.catalog.failing_writes = None
        self.assertEqual(self.sample.file, self.download(self.key))
        self.assertEqual([0], self.asked())
        self.assertTrue(self.record().is_stored)

    def test_late_client_fetches_its_own(self) -> None:
        """If the first bytes were not kept, a client that comes later starts another download."""
        big = sample("big", WINDOW_HIGH + 3_000_000, "none")
        self.origin.add(big)
        self.learn(big)
        self.is_full = True
        self.script(Script(stall_at=WINDOW_HIGH))
        early = self.client(big.key)
        self.assertEqual(WINDOW_HIGH, len(early.data))
        late = self.begun(big.key, script=Script(hold=True))
        self.successResultOf(late.done)
        self.successResultOf(early.done)
        self.assertEqual([big.file, big.file], [early.data, late.data])
        self.assertEqual(2, len(self.origin.asked("nar")))
        self.assertEqual(0, self.nars.arriving)

    def test_a_download_without_clients_ends_on_a_full_disk(self) -> None:
        """A file that no client reads and that is not kept is not fetched to its end."""
        big = sample("big", 3 * WINDOW_HIGH, "none")
        self.origin.add(big)
        self.learn(big)
        self.is_full = True
        self.script(Script(stall_at=100_000))
        self.client(big.key).leave()
        self.origin.release()
        self.assertEqual({"failed": 1}, self.ended)

    def test_threads_that_stop_end_the_download(self) -> None:
        """A fault of our own ends the download immediately; no other upstream is asked."""
        self.both()

        class Stopped:
            async def run(self, *_: Any) -> Any:
                raise Unavailable("the threads have stopped")

        self.threads = Stopped()  # type: ignore[assignment]
        self.restart()
        client = self.begun(self.key, script=Script(hold=True))
        self.failureResultOf(client.done, Unavailable)
        self.assertEqual(([0], []), (self.asked(), self.asked(self.mirror)))
        self.assertTrue(self.upstreams.is_reachable("http://a.example.org"))
