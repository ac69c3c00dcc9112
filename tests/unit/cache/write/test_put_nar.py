"""Uploads of NARs: which ones are stored, and which are refused and leave nothing."""

from __future__ import annotations

from ncps.aio.spool import Spool
from ncps.cache.write import held
from ncps.cache.write.arriving import STEP
from ncps.cache.write.held import TINY, TINY_NAR
from ncps.cache.write.inspection import DEADLINE_S, PLACES
from ncps.cache.write.verbs import UploadOutcome
from ncps.codec import encoder
from ncps.errors import (
    Conflict,
    Malformed,
    SlowClient,
    StorageFull,
    TooLarge,
    Unavailable,
)
from ncps.nix.hashes import sha256_of
from ncps.nix.nar import FILE_HEAD
from ncps.nix.narurl import NarKey
from tests.fakes.samples import UPSTREAM_KEY, sample
from tests.fakes.threads import HeldThreads
from tests.fakes.workers import FakeWorkers
from tests.unit.cache.write.rig import Sending, UploadCase, by, chunks_of, each_tenth, upload


def key_of(data: bytes, extension: str = "") -> NarKey:
    return NarKey(sha256_of(data).nix32, extension)


class PutNarTests(UploadCase):
    def test_a_nar_is_stored_under_the_hash_of_its_file(self) -> None:
        """Bytes and row are there, with all facts, in each compression; announced or not."""
        for compression in ("none", "zstd", "xz", "bzip2", "gzip"):
            for announced in (True, False):
                one = upload(f"{compression}{announced}", compression)
                self.assertEqual(UploadOutcome.STORED, self.put_nar(one, announced=announced))
                self.assertEqual(one.file, self.store.objects[one.conventional])
                row = self.catalog.records[one.conventional]
                told = one.narinfo
                self.assertEqual(
                    (told.compression, told.file_hash, told.file_size),
                    (row.compression, row.file_hash, row.file_size),
                )
                self.assertEqual((told.nar_hash, told.nar_size), (row.nar_hash, row.nar_size))
                self.assertIsNotNone(row.verified_at)
                self.assertIsNotNone(row.uploaded_at)
                self.assertEqual("", row.upstream)
        self.assertEqual(10, self.counts["nar stored"])

    def test_a_tiny_file_needs_no_thread_to_be_looked_into(self) -> None:
        """A thread inspects a file only if it is wrong, or if the NAR inside is not tiny."""
        threads = self.threads = FakeWorkers()
        self.restart()
        for size, compression, calls in (
            (1_000, "zstd", 0),
            (1_000, "none", 0),
            (TINY_NAR + 1, "zstd", 1),
            (TINY + 1, "none", 1),
        ):
            one, before = upload(f"{compression}{size}", compression, size), threads.calls
            self.assertEqual(UploadOutcome.STORED, self.put_nar(one))
            self.assertEqual(calls, threads.calls - before)
            row = self.catalog.records[one.conventional]
            self.assertEqual(one.narinfo.nar_hash, row.nar_hash)
        nar, before = upload(compression="none", size=1_000).file + b"x", threads.calls
        self.refuse_nar(key_of(nar), nar, Malformed, len(nar))
        self.assertEqual(1, threads.calls - before)

    def test_clients_that_leave_free_no_place_whose_thread_works(self) -> None:
        """The inspection of small files takes a few threads; the store has the others."""
        threads = self.threads = HeldThreads()
        self.restart()
        for number in range(2 * PLACES):
            one = upload(f"{number}", "none", 30_000)
            body = chunks_of(one.file)
            sending = self.start(self.uploads.put_nar(one.conventional, body, len(one.file)))
            sending.addErrback(lambda _: None)
            sending.cancel()
        self.assertEqual(PLACES, len(threads))
        threads.release()
        sending = self.start(
            self.uploads.put_nar(one.conventional, chunks_of(one.file), len(one.file))
        )
        threads.release()
        self.assertEqual(UploadOutcome.STORED, self.successResultOf(sending))

    def test_a_small_file_that_finds_no_place_in_time_is_looked_into_later(self) -> None:
        """The client gets an answer before a proxy gives up; the NAR is verified later."""
        threads = self.threads = HeldThreads()
        self.restart()
        ones = [upload(f"{number}", "none", 30_000) for number in range(PLACES)]
        last = upload("last", "none", 30_000)
        putting = [
            self.start(self.uploads.put_nar(one.conventional, chunks_of(one.file), len(one.file)))
            for one in (*ones, last)
        ]
        self.clock.advance(DEADLINE_S - 1)
        self.assertNoResult(putting[-1])
        self.clock.advance(1)
        self.assertEqual(UploadOutcome.STORED, self.successResultOf(putting[-1]))
        self.assertIsNone(self.catalog.records[last.conventional].verified_at)
        threads.release()
        self.assertIsNotNone(self.catalog.records[last.conventional].verified_at)
        for each in putting[:-1]:
            self.assertEqual(UploadOutcome.STORED, self.successResultOf(each))

    def test_small_files_share_the_memory(self) -> None:
        """If all memory is taken, an upload goes into a spool; each upload frees its memory."""
        self.patch(held, "MEMORY", 50_000)
        one, other, third = (upload(name, "none", 30_000) for name in ("one", "other", "third"))
        body = Sending(one.file[:20_000])
        sending = self.start(self.uploads.put_nar(one.conventional, body, len(one.file)))
        self.put_nar(other)
        self.assertEqual(1, len(self.files))
        body.fail(SlowClient("gone"))
        self.failureResultOf(sending, SlowClient)
        self.put_nar(third)
        self.assertEqual(1, len(self.files))

    def test_the_same_bytes_again_are_no_news(self) -> None:
        """A second upload succeeds, and nothing is stored again.

        A small upload of announced size stays in memory; any other one is a file meanwhile.
        """
        for announced, files in ((True, 0), (False, 1)):
            one = upload(f"{announced}")
            self.put_nar(one, announced=announced)
            before = self.catalog.records[one.conventional]
            self.clock.advance(5)
            self.assertEqual(UploadOutcome.KNOWN, self.put_nar(one, announced=announced))
            after = self.catalog.records[one.conventional]
            self.assertEqual(before.stored_at, after.stored_at)
            self.assertEqual(files, len(self.files))

    def test_a_file_that_goes_while_it_is_compared_is_no_success(self) -> None:
        """If the file is evicted or lost meanwhile, the client must send it again, and succeeds."""
        one = upload()
        for is_evicted in (True, False):
            self.put_nar(one)
            body = Sending(one.file)
            sending = self.sending(one.conventional, body)
            if is_evicted:
                self.get(self.catalog.mark_missing(one.conventional))
            del self.store.objects[one.conventional]
            body.send(None)
            self.failureResultOf(sending, Unavailable)
            self.assertEqual(UploadOutcome.STORED, self.put_nar(one))

    def test_a_nar_that_comes_back_has_its_narinfo_beside_it(self) -> None:
        """A rebuild finds a path that was evicted and uploaded again."""
        one = upload()
        self.put(one)
        self.get(self.catalog.mark_missing(one.conventional))
        del self.store.objects[one.conventional]
        self.get(self.sidecars.delete(one.digest))
        self.put(one)
        self.assertIn(one.digest, self.sidecars.texts)

    def test_bytes_of_an_upstream_count_as_here(self) -> None:
        """An upload of a file that came from an upstream, under another name, is no news."""
        one = sample()
        self.origin.add(one)
        self.learn(one)
        self.download(one.key)
        self.assertEqual(UploadOutcome.KNOWN, self.put_nar(one))

    def test_other_bytes_under_a_stored_name_are_a_conflict(self) -> None:
        """ncps refuses the other bytes, and the stored ones stay."""
        one = upload()
        self.put_nar(one)
        for data in (one.file[:-1] + b"x", one.file + b"x", b"x"):
            self.refuse_nar(one.conventional, data, Conflict)
        self.assertEqual(one.file, self.store.objects[one.conventional])

    def test_the_name_must_be_the_hash(self) -> None:
        """Bytes with another hash are refused, and nothing is stored."""
        one, other = upload("one"), upload("other")
        self.assertIn("SHA-256", self.refuse_nar(one.conventional, other.file, Malformed))
        self.assertNothingOf(one)
        self.assertEqual({}, self.store.objects)

    def test_an_upload_is_a_nar(self) -> None:
        """Bytes that are no NAR, not whole, in another compression or in none are refused."""
        nar = upload(compression="none").file
        maker = encoder("zstd")
        text = maker.feed(b"text" * 100) + maker.finish()
        for data, extension in (
            (b"text" * 100, ""),
            (nar[:-1], ""),
            (nar + b"x", ""),
            (nar, "zst"),
            (upload().file[:-10], "xz"),
            (text, "zst"),
            (b"", ""),
        ):
            self.refuse_nar(key_of(data, extension), data, Malformed)
        self.assertEqual({}, self.store.objects)

    def test_a_compression_that_nothing_reads_is_refused(self) -> None:
        """A NAR in lzip could never be verified."""
        self.assertIn("lzip", self.refuse_nar(key_of(b"x", "lzip"), b"x", Malformed))

    def test_the_announced_size_counts(self) -> None:
        """A body that is shorter or longer than announced is refused."""
        one = upload()
        size = len(one.file)
        self.refuse_nar(one.conventional, one.file, Malformed, size + 1)
        self.refuse_nar(one.conventional, one.file, TooLarge, size - 1)
        self.assertNothingOf(one)

    def test_an_upload_may_be_too_large(self) -> None:
        """The limit holds for the announced size, before a byte is read, and for the bytes."""
        one = upload(compression="none")
        self.make(max_size=len(one.file) - 1)
        body = Sending()
        putting = self.uploads.put_nar(one.conventional, body, len(one.file))
        self.refused(putting, TooLarge)
        self.refuse_nar(one.conventional, one.file, TooLarge)
        self.assertNothingOf(one)
        self.assertEqual(["cache-upload-max-size"] * 2, self.refusals)

    def test_a_full_disk_refuses_before_a_byte_is_read(self) -> None:
        """Room for the announced size is needed before the upload begins."""
        one = upload()
        self.free = 1000
        body = Sending()
        self.refused(self.uploads.put_nar(one.conventional, body, len(one.file)), StorageFull)
        self.assertNothingOf(one)

    def test_an_upload_without_a_length_leaves_the_reserve(self) -> None:
        """A body that does not end reserves room on the disk step by step, and not all of it."""
        self.free, piece = 3 * STEP, bytes(STEP // 4)
        body = Sending(FILE_HEAD + (2**40).to_bytes(8, "little"))
        sending = self.sending(key_of(b"endless"), body)
        for _ in range(100):
            if sending.called:
                break
            self.free -= len(piece)
            body.send(piece)
        self.assertIn("reserve", str(self.failureResultOf(sending, StorageFull).value))
        self.assertGreater(self.free, 0)

    def test_a_disk_that_becomes_full_ends_an_upload(self) -> None:
        """ncps stops reading an upload that it cannot keep."""
        one = upload()
        self.is_full = True
        self.refuse_nar(one.conventional, one.file, StorageFull)
        self.assertNothingOf(one)

    def test_a_client_that_leaves_leaves_nothing(self) -> None:
        """At every tenth of the body: no bytes, no row, no room taken, no file."""
        one = upload(compression="none")
        for offset in each_tenth(one.file):
            body = Sending()
            sending = self.sending(one.conventional, body)
            body.send(one.file[: offset + 1])
            sending.addErrback(lambda _: None)
            sending.cancel()
            body = Sending()
            sending = self.sending(one.conventional, body)
            body.send(one.file[: offset + 1])
            body.fail(Unavailable("the client has gone"))
            self.failureResultOf(sending, Unavailable)
            self.assertNothingOf(one)
        self.assertEqual((10, 10), (self.counts["nar cut"], self.counts["nar failed"]))

    def test_a_client_that_leaves_at_the_end_changes_nothing(self) -> None:
        """All bytes have arrived: ncps stores them though no client waits for the answer."""
        one = upload()
        lease = self.get(self.leases.take(f"download:nar:{one.conventional.file_name}"))
        body = Sending(one.file)
        sending = self.sending(one.conventional, body)
        body.send(None)
        self.assertNoResult(sending)
        sending.addErrback(lambda _: None)
        sending.cancel()
        self.get(lease.release())
        self.assertIn(one.conventional, self.store.objects)

    def test_two_uploads_of_one_file_are_one(self) -> None:
        """Both succeed, and the file is published once."""
        one = upload()
        first, second = Sending(), Sending()
        results = [self.sending(one.conventional, body) for body in (first, second)]
        for body in (first, second):
            body.send(one.file)
        lease = self.get(self.leases.take(f"download:nar:{one.conventional.file_name}"))
        for body in (first, second):
            body.send(None)
        self.get(lease.release())
        outcomes = [self.successResultOf(result) for result in results]
        self.assertEqual([UploadOutcome.STORED] * 2, outcomes)

    def test_many_uploads_hold_little_memory(self) -> None:
        """Each of a hundred uploads waits until its bytes are written."""
        longest = 0
        write = Spool.write

        async def measured(spool: Spool, data: bytes) -> None:
            nonlocal longest
            await write(spool, data)
            longest = max(longest, spool._queue.size)

        self.patch(Spool, "write", measured)
        bodies = []
        for number in range(100):
            one = upload(str(number), "none", 10_000)
            body = Sending()
            bodies.append((one, body, self.sending(one.conventional, body)))
        for one, body, _ in bodies:
            body.send(one.file)
        for _, body, sending in bodies:
            body.send(None)
            self.assertEqual(UploadOutcome.STORED, self.successResultOf(sending))
        self.assertLess(longest * 100, 64 * 1024 * 1024)

    def test_a_busy_lease_is_waited_for_a_while(self) -> None:
        """While another process removes the NAR, the upload waits, and then fails."""
        one = upload()
        lease = self.get(self.leases.take(f"download:nar:{one.conventional.file_name}"))
        body = Sending(one.file)
        sending = self.sending(one.conventional, body)
        body.send(None)
        self.assertNoResult(sending)
        self.clock.advance(30)
        self.failureResultOf(sending, Unavailable)
        self.assertNothingOf(one)
        self.get(lease.release())
        self.put_nar(one)

    def test_bytes_that_were_removed_under_a_lost_lease_are_no_success(self) -> None:
        """The client is told to send them again, and no row says that they are there."""
        one = upload()
        publish = self.store.publish

        async def lost(*args: object) -> object:
            stat = await publish(*args)  # type: ignore[arg-type]
            [held] = self.leases.held.values()
            held.lost = True
            del self.store.objects[one.conventional]
            return stat

        self.patch(self.store, "publish", lost)
        self.refuse_nar(one.conventional, one.file, Unavailable)
        self.assertNothingOf(one)

    def test_a_store_or_a_database_that_fails_stores_nothing_half(self) -> None:
        """The answer is "try again", and the next upload succeeds."""
        one = upload()
        self.store.failing = Unavailable("away")
        self.refuse_nar(one.conventional, one.file, Unavailable)
        self.store.failing = None
        self.catalog.failing = Unavailable("away")
        self.refuse_nar(one.conventional, one.file, Unavailable)
        self.catalog.failing = None
        self.assertNothingOf(one)
        self.assertEqual(UploadOutcome.STORED, self.put_nar(one))

    def test_a_row_that_could_not_be_written_leaves_an_orphan(self) -> None:
        """The bytes are under their name, without a row; the same upload succeeds later."""
        one = upload()
        self.catalog.failing_writes = Unavailable("away")
        self.refuse_nar(one.conventional, one.file, Unavailable)
        self.catalog.failing_writes = None
        self.assertIn(one.conventional, self.store.objects)
        self.assertNotIn(one.conventional, self.catalog.records)
        self.assertIn(self.put_nar(one), set(UploadOutcome))
        self.put_narinfo(one)
        self.assertTrue(self.catalog.records[one.conventional].is_only_copy)

    def test_an_origin_that_is_known_is_kept(self) -> None:
        """A NAR that an upstream has, and that is not stored, stays one that it has."""
        one = by(upload(compression="none"), UPSTREAM_KEY)
        self.origin.add(one)
        self.learn(one)
        self.put_nar(one)
        row = self.catalog.records[one.conventional]
        self.assertEqual(self.origin.base_url, row.upstream)
        self.assertFalse(row.is_only_copy)
