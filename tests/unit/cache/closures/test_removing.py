"""Removing paths and NARs: first the record, then the bytes; paths that others need stay."""

from __future__ import annotations

from datetime import UTC, datetime

from attrs import evolve

from ncps.cache.answers import Absent, Outcome
from ncps.cache.closures.removing import RemovalWish
from ncps.errors import Conflict, Malformed, NotFound, Unavailable
from ncps.ports import Block, Notice
from tests.fakes.upstream import Script
from tests.unit.cache.closures.rig import ClosuresCase, small


class DeleteTests(ClosuresCase):
    def test_a_narinfo_goes_and_its_nar_stays(self) -> None:
        """Other replicas get a notice; the next client's request fetches the narinfo anew."""
        self.store_all(self.libc)
        self.get(self.removing.delete_narinfo(self.libc.digest))
        self.assertNotIn(self.libc.digest, self.catalog.entries)
        self.assertNotIn(self.libc.digest, self.sidecars.texts)
        self.assertIn(self.libc.key, self.store.objects)
        self.assertIn(Notice("narinfo", self.libc.digest), self.notices.published)
        self.assertIs(self.get(self.narinfos.get(self.libc.digest)).outcome, Outcome.MISS)

    def test_ready_answers_are_dropped(self) -> None:
        """The web layer gets the hash part."""
        self.store_all(self.libc)
        self.learn(self.libc)
        forgotten: list[str] = []
        self.narinfos.watch(forgotten.append)
        self.get(self.removing.delete_narinfo(self.libc.digest))
        self.assertIn(self.libc.digest, forgotten)

    def test_nothing_to_delete(self) -> None:
        """An absent narinfo or NAR is NotFound."""
        self.refused(self.removing.delete_narinfo(self.libc.digest), NotFound)
        self.refused(self.removing.delete_nar(self.libc.key), NotFound)
        self.learn(self.libc)
        self.refused(self.removing.delete_nar(self.libc.key), NotFound)

    def test_a_nar_goes_and_can_be_fetched_again(self) -> None:
        """Row and origin stay, as after an eviction; the sidecar is removed with the bytes."""
        self.store_all(self.libc)
        self.get(self.removing.delete_nar(self.libc.key))
        self.assertEqual(self.store.objects, {})
        self.assertEqual(self.sidecars.texts, {})
        self.assertFalse(self.catalog.records[self.libc.key].is_stored)
        self.assertEqual(self.download(self.libc.key), self.libc.file)

    def test_all_representations_of_a_nar_go(self) -> None:
        """Also a NAR in another compression, under a name of its own."""
        self.store_all(self.libc)
        plain = small("libc")
        other = self.catalog.records[self.libc.key]
        key = plain.conventional
        self.store.put(key, b"other")

        self.get(self.catalog.mark_stored(evolve(other, key=key, stored_size=5)))
        self.get(self.removing.delete_nar(self.libc.key))
        self.assertEqual(self.store.objects, {})

    def test_bytes_without_a_row_go_too(self) -> None:
        """Otherwise the next client's request would adopt them again."""
        self.store.put(self.libc.key, self.libc.file)
        self.get(self.removing.delete_nar(self.libc.key))
        self.assertEqual(self.store.objects, {})

    def test_a_nar_that_arrives_is_not_published(self) -> None:
        """Its clients get all bytes."""
        self.learn(self.libc)
        self.origin.scripts.append(Script(hold=True))
        opening = self.open(self.libc.key)
        self.get(self.removing.delete_nar(self.libc.key))
        self.origin.release()
        _, client = self.successResultOf(opening)
        self.successResultOf(client.done)
        self.assertEqual(client.data, self.libc.file)
        self.assertEqual(self.store.objects, {})
        self.assertEqual(self.ended, {"unkept": 1})

    def test_a_nar_that_another_process_fetches(self) -> None:
        """It cannot be deleted now: that process would publish it afterwards."""
        self.store_all(self.libc)
        lease = self.get(self.leases.take(f"download:nar:{self.libc.key.file_name}"))
        error = self.refused(self.removing.delete_nar(self.libc.key), Unavailable)
        self.assertEqual(error.retry_after, 5.0)
        self.assertTrue(self.is_here(self.libc))
        self.get(lease.release())
        self.get(self.removing.delete_nar(self.libc.key))

    def test_a_database_that_is_away_deletes_nothing(self) -> None:
        """Bytes and sidecar stay if the row could not be removed."""
        self.store_all(self.libc)
        self.removals.failing_writes = Unavailable("away")
        self.refused(self.removing.delete_nar(self.libc.key), Unavailable)
        self.refused(self.removing.delete_narinfo(self.libc.digest), Unavailable)
        self.assertTrue(self.is_here(self.libc))


class RemoveTests(ClosuresCase):
    def test_one_path(self) -> None:
        """Narinfo, NAR and sidecar are removed; its references stay."""
        self.store_all(*self.closure)
        report = self.remove(self.app)
        self.assertEqual(self.here(), ["lib", "libc"])
        self.assertEqual(report.removed, (self.app.narinfo.store_path.base,))
        self.assertEqual((report.count, report.size), (1, len(self.app.file)))

    def test_a_closure_without_paths_that_others_need(self) -> None:
        """`libc` stays for `tool`, `lib` is removed."""
        self.store_all(*self.closure, self.tool)
        report = self.remove(self.app, closure=True)
        self.assertEqual(self.here(), ["libc", "tool"])
        self.assertEqual((report.count, report.kept), (2, 1))

    def test_a_closure_that_nothing_else_needs(self) -> None:
        """All of it is removed."""
        self.store_all(*self.closure)
        self.assertEqual(self.remove(self.app, closure=True).count, 3)
        self.assertEqual(self.here(), [])

    def test_pinned_references_of_a_closure_stay(self) -> None:
        """They stay with all that they need; a pinned root is refused."""
        self.store_all(*self.closure)
        self.pin(self.lib)
        self.assertEqual(self.remove(self.app, closure=True).kept, 2)
        self.assertEqual(self.here(), ["lib", "libc"])
        digests = (self.lib.digest,)

        self.refused(self.removing.remove(RemovalWish(digests=digests)), Conflict)
        self.remove(self.lib, force=True)
        self.assertEqual(self.here(), ["libc"])

    def test_a_dry_run_changes_nothing(self) -> None:
        """It names the paths that would be removed."""
        self.store_all(*self.closure)
        report = self.remove(self.app, closure=True, dry_run=True)
        self.assertEqual((report.count, report.size), (3, sum(len(e.file) for e in self.closure)))
        self.assertEqual(self.here(), ["app", "lib", "libc"])

    def test_a_path_that_another_process_fetches_is_named(self) -> None:
        """The others are removed."""
        self.store_all(*self.closure)
        lease = self.get(self.leases.take(f"download:nar:{self.lib.key.file_name}"))
        report = self.remove(self.app, self.lib)
        self.assertEqual((report.busy, report.count), ((self.lib.digest,), 1))
        self.assertEqual(self.here(), ["lib", "libc"])
        self.get(lease.release())

    def test_senseless_wishes(self) -> None:
        """No path at all, and paths that are not here."""

        self.refused(self.removing.remove(RemovalWish(digests=())), Malformed)
        wish = RemovalWish(digests=(self.app.digest,))
        self.refused(self.removing.remove(wish), NotFound)

    def test_a_nar_of_two_paths_stays_for_the_other(self) -> None:
        """Only the narinfo of the first is removed."""
        twin = small("libc").altered(store_path=self.tool.narinfo.store_path, references=())
        self.origin.add(twin)
        self.store_all(self.libc)
        self.learn(twin)
        self.remove(twin)
        self.assertTrue(self.is_here(self.libc))


class NeverAgainTests(ClosuresCase):
    def block(self) -> None:
        self.store_all(self.libc)
        self.remove(self.libc, never_again=True)
        self.assertEqual(self.here(), [])

    def test_a_blocked_path_is_not_fetched_again(self) -> None:
        """Neither its narinfo nor its NAR: no upstream is asked, and the 404 is certain."""
        self.block()
        asked = len(self.origin.asked("narinfo")), len(self.origin.asked("nar"))
        for work in (self.narinfos.get(self.libc.digest), self.nars.open(self.libc.key)):
            error = self.refused(work, Absent)
            self.assertTrue(error.is_certain)
        self.refused(self.nars.open(self.libc.conventional), Absent)
        now = len(self.origin.asked("narinfo")), len(self.origin.asked("nar"))
        self.assertEqual(now, asked)

    def test_the_same_nar_under_another_path(self) -> None:
        """Its NarHash is blocked, too."""
        self.block()
        twin = self.libc.altered(store_path=self.tool.narinfo.store_path, references=())
        self.origin.add(twin)
        self.refused(self.narinfos.get(twin.digest), NotFound)
        self.refused(self.narinfos.get(twin.digest), Absent)
        self.assertEqual(self.catalog.entries, {})

    def test_a_path_that_is_not_here_can_be_blocked(self) -> None:
        """It is never fetched."""
        report = self.remove(self.app, never_again=True)
        self.assertEqual(report.removed, (self.app.digest,))
        self.refused(self.narinfos.get(self.app.digest), Absent)
        self.assertEqual(self.origin.asked("narinfo"), [])

    def test_a_download_is_broken_off(self) -> None:
        """Its clients get an error, and nothing is published."""
        self.learn(self.libc)
        self.origin.scripts.append(Script(stall_at=100))
        client = self.client(self.libc.key)
        self.remove(self.libc, never_again=True)
        self.failureResultOf(client.done, Absent)
        self.origin.release()
        self.clock.advance(0)
        self.assertEqual(self.store.objects, {})

    def test_a_download_of_another_process_is_not_published(self) -> None:
        """The transaction that would record it fails, and the bytes are removed."""
        self.learn(self.libc)
        self.origin.scripts.append(Script(hold=True))
        opening = self.open(self.libc.key)

        at = datetime(2026, 1, 1, tzinfo=UTC)
        self.get(self.removals.block([Block(digest=self.libc.digest, blocked_at=at)]))
        self.origin.release()
        _, client = self.successResultOf(opening)
        self.successResultOf(client.done)
        self.assertEqual((self.store.objects, self.ended), ({}, {"unkept": 1}))

    def test_bytes_in_the_store_are_not_adopted(self) -> None:
        """Also bytes that a crash has left."""
        self.block()
        self.store.put(self.libc.key, self.libc.file)
        self.refused(self.nars.open(self.libc.key), NotFound)

    def test_unblocking(self) -> None:
        """The path can be fetched again."""
        self.block()
        self.assertEqual([b.digest for b in self.get(self.removing.blocked())], [self.libc.digest])
        self.assertTrue(self.get(self.removing.unblock(self.libc.digest)))
        self.assertFalse(self.get(self.removing.unblock(self.libc.digest)))
        self.store_all(self.libc)
        self.assertEqual(self.here(), ["libc"])


class SmallNeverAgainTests(ClosuresCase):
    small_size = 1 << 20

    def test_one_that_waits_to_be_stored_is_served_no_more(self) -> None:
        """From the removal on, no client gets its bytes from memory, and they are not stored."""
        self.core.publication.beat.pause_s = 0.02
        self.learn(self.libc)
        self.download(self.libc.key)
        self.remove(self.libc, never_again=True)
        self.refused(self.nars.open(self.libc.key), Absent)
        self.refused(self.nars.arriving_nar(self.libc.key), NotFound)
        self.clock.advance(0.02)
        self.assertEqual((self.store.objects, self.ended), ({}, {"unkept": 1}))
        self.assertEqual(0, len(self.core.running))
