"""Spool: batches are written in order, one at a time; the last user closes the file."""

from __future__ import annotations

import os
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred

from ncps.aio import spool_file
from ncps.aio.spool import Spool
from ncps.aio.spool_content import APART
from ncps.aio.spool_file import MUCH
from ncps.aio.spool_queue import BATCH_LIMIT, QUEUE_HIGH, QUEUE_LOW
from ncps.aio.spool_reader import HOLD_BACK, Overtaken
from ncps.aio.threads import Threads
from ncps.aio.writeback import begin_writeback
from ncps.errors import Corrupt, NotFound, Unavailable
from ncps.nix.hashes import sha256_of
from tests.fakes.spoolfile import CountedFile
from tests.fakes.threads import HeldThreads, InlineThreads
from tests.unit.aio.spool_case import MIB, Sha256, SpoolCase, noise, not_in_memory


class WritingTests(SpoolCase):
    def setUp(self) -> None:
        super().setUp()
        self.held = self.threads = HeldThreads()
        self.spool = self.new()

    def test_one_batch_at_a_time_in_order(self) -> None:
        """Bytes are written and hashed in order, never two batches at the same time."""
        data = noise(5 * MIB)
        for start in range(0, len(data), MIB):
            self.put(data[start : start + MIB])
            self.assertEqual(1, len(self.held))
        self.held.release(1)
        self.assertEqual(MIB, self.spool.length)
        self.held.release(1)
        self.assertEqual(MIB + BATCH_LIMIT, self.spool.length)
        client = self.client()
        self.held.release()
        self.finish()
        self.successResultOf(client.done)
        self.assertEqual(data, client.data)
        self.assertEqual(sha256_of(data).digest, self.digest.hash.digest())

    def test_writer_waits_at_the_bound_and_goes_on(self) -> None:
        """A slow disk stops the source at 8 MiB, and lets it continue at 4 MiB."""
        writes = [self.write(noise(MIB)) for _ in range(QUEUE_HIGH // MIB)]
        for write in writes:
            self.successResultOf(write)
        blocked = self.write(b"x")
        self.assertNoResult(blocked)
        while self.spool._queue.size > QUEUE_LOW:
            self.assertNoResult(blocked)
            self.held.release(1)
        self.successResultOf(blocked)

    def test_millions_of_tiny_chunks_are_queued_in_linear_time(self) -> None:
        """Many tiny chunks are queued in linear time."""

        async def drip() -> None:
            for _ in range(300_000):
                await self.spool.write(b"x")

        self.successResultOf(Deferred.fromCoroutine(drip()))
        self.held.release()
        self.assertEqual(300_000, self.spool.length)

    def test_writer_blocked_at_the_bound_is_told_of_failure(self) -> None:
        """A writer that waits is told when the spool ends."""
        for _ in range(QUEUE_HIGH // MIB):
            self.write(noise(MIB))
        blocked = self.write(b"x")
        self.spool.fail(Unavailable("over"))
        self.failureResultOf(blocked, Unavailable)
        self.failureResultOf(self.write(b"y"), Unavailable)
        self.failureResultOf(Deferred.fromCoroutine(self.spool.flush()), Unavailable)

    def test_cancelled_writer_can_be_followed(self) -> None:
        """A cancelled wait for the disk leaves the spool usable."""
        for _ in range(QUEUE_HIGH // MIB):
            self.write(noise(MIB))
        blocked = self.write(b"x")
        blocked.cancel()
        self.failureResultOf(blocked, CancelledError)
        flushing = Deferred.fromCoroutine(self.spool.flush())
        self.assertNoResult(flushing)
        self.held.release()
        self.successResultOf(flushing)
        self.assertEqual(QUEUE_HIGH + 1, self.spool.length)

    def test_a_flush_may_leave_some(self) -> None:
        """A writer can wait until a part of its bytes is written."""
        for _ in range(5):
            self.put(noise(MIB))
        flushing = Deferred.fromCoroutine(self.spool.flush(2 * MIB))
        self.held.release(1)
        self.assertNoResult(flushing)
        self.held.release(1)
        self.successResultOf(flushing)
        self.assertEqual(3 * MIB, self.spool.length)

    def test_flush_waits_for_everything(self) -> None:
        """After a flush every byte is written and hashed."""
        self.put(b"abc")
        self.put(b"def")
        flushing = Deferred.fromCoroutine(self.spool.flush())
        self.held.release(1)
        self.assertNoResult(flushing)
        self.held.release(1)
        self.successResultOf(flushing)
        self.assertEqual(6, self.digest.seen)
        spooled = self.spool.spooled(sha256_of(b"abcdef"))
        self.assertEqual((6, b"abcdef"), (spooled.size, spooled.path.read_bytes()))

    def test_digest_that_finds_corruption_ends_the_writing(self) -> None:
        """The digest's error ends the writing; the writer decides what readers get."""
        self.digest.bad_after = 150_000
        client = self.client()
        self.put(noise(150_000))
        self.held.release()
        self.put(noise(10))
        self.held.release()
        self.assertIsInstance(self.spool.error, Corrupt)
        self.failureResultOf(self.write(b"more"), Corrupt)
        self.failureResultOf(Deferred.fromCoroutine(self.spool.flush()), Corrupt)
        self.assertNoResult(client.done)
        self.spool.fail(NotFound("superseded"))
        self.failureResultOf(client.done, NotFound)

    def test_file_is_closed_after_the_running_batch(self) -> None:
        """The descriptor is not closed under a thread that writes to it."""
        self.put(b"abc")
        client = self.client()
        self.spool.fail(Unavailable("over"))
        self.failureResultOf(client.done, Unavailable)
        self.spool.release()
        self.assertEqual((0, 0), (self.file.discarded, self.file.closed))
        self.held.release()
        self.assertEqual((1, 1), (self.file.discarded, self.file.closed))

    def test_file_is_not_closed_under_a_thread_that_reads(self) -> None:
        """If a reader leaves while a thread reads for it, the file stays until that ends."""
        self.put(noise(2 * HOLD_BACK))
        self.held.release()
        self.patch(os, "preadv", not_in_memory)
        client = self.client()
        self.spool.fail(Unavailable("over"))
        self.spool.release()
        client.body.close()
        self.assertEqual(0, self.file.closed)
        self.held.release()
        self.failureResultOf(client.done, Unavailable)
        self.assertEqual((1, 1), (self.file.discarded, self.file.closed))

    def test_file_is_opened_by_a_thread(self) -> None:
        """If the disk is slow to make a file, only the download waits."""
        made: list[CountedFile] = []

        def make() -> CountedFile:
            made.append(self.file)
            return self.file

        self.spool = Spool(file=make, workers=self.threads, digests=(), total=None)
        self.put(b"abc")
        self.assertEqual(([], True), (made, self.spool.is_kept))
        self.held.release()
        self.assertEqual(([self.file], True), (made, self.spool.is_kept))

    def test_an_empty_file_is_a_file(self) -> None:
        """An empty file can be published."""
        flushing = Deferred.fromCoroutine(self.spool.flush())
        self.held.release()
        self.successResultOf(flushing)
        self.assertEqual(0, self.spool.spooled(sha256_of(b"")).size)

    def test_file_is_closed_after_a_batch_that_failed(self) -> None:
        """A batch that fails still lets the file be closed."""
        self.digest.bad_after = 3
        self.put(b"abc")
        self.held.release()
        self.put(b"def")
        self.spool.release()
        self.held.release()
        self.assertEqual(1, self.file.closed)

    def test_file_outlives_the_writer_until_the_last_reader(self) -> None:
        """A slow client continues to read after the file was unlinked."""
        self.put(b"abc")
        self.held.release()
        slow = self.client()
        other = self.client()
        self.finish()
        self.spool.release()
        self.successResultOf(slow.done)
        self.successResultOf(other.done)
        self.held.release()
        self.assertEqual((1, 1), (self.file.discarded, self.file.closed))
        self.assertRaises(Overtaken, self.spool.reader)

    def test_reader_left_open_keeps_the_file_open(self) -> None:
        """The descriptor stays open while there is a reader."""
        self.put(b"abc")
        self.held.release()
        reader = self.spool.reader()
        self.finish()
        self.assertEqual(0, self.file.closed)
        reader.close()
        self.held.release()
        self.assertEqual(1, self.file.closed)


class ThreadsGoneTests(SpoolCase):
    def test_threads_that_have_stopped_end_the_writing(self) -> None:
        """When the threads have stopped, the writer gets an error."""

        class Stopped:
            async def run(self, *_: Any) -> Any:
                raise Unavailable("the threads are not running")

        self.threads = cast("Threads", Stopped())
        self.spool = self.new()
        self.write(b"abc").addErrback(lambda f: f.trap(Unavailable))
        self.failureResultOf(self.write(b"def"), Unavailable)
        self.spool.release()
        self.assertEqual(0, self.file.closed)  # it was never opened

    def test_the_file_goes_without_threads(self) -> None:
        """A file that is open when the threads stop is closed as well."""

        class Stopping(InlineThreads):
            has_stopped = False

            async def run(self, *args: Any, **kwargs: Any) -> Any:
                if self.has_stopped:
                    raise Unavailable("the threads are not running")
                return await super().run(*args, **kwargs)

        self.threads = Stopping()
        self.spool = self.new()
        self.put(b"abc")
        self.threads.has_stopped = True
        self.spool.release()
        self.assertEqual((1, 1), (self.file.discarded, self.file.closed))


class ApartTests(SpoolCase):
    """A spool with two digests; in large batches each has its own thread."""

    def setUp(self) -> None:
        super().setUp()
        self.held = self.threads = HeldThreads()
        self.other = Sha256()
        self.spool = Spool(
            file=lambda: self.file,
            workers=self.threads,
            digests=(self.digest, self.other),
            total=None,
        )

    def test_the_digests_of_a_large_batch_work_at_the_same_time(self) -> None:
        """The batch ends when both digests have read it; the next one waits."""
        data = noise(3 * APART)
        for start in range(0, len(data), APART):
            self.put(data[start : start + APART])
            self.assertEqual(2, len(self.held))
        self.held.release(1)
        self.assertEqual((0, 1), (self.spool.length, len(self.held)))
        self.held.release(1)
        self.assertEqual((APART, 2), (self.spool.length, len(self.held)))
        self.held.release()
        self.finish()
        for digest in (self.digest, self.other):
            self.assertEqual(sha256_of(data).digest, digest.hash.digest())
        self.assertEqual(data, self.file.path.read_bytes())

    def test_a_batch_that_a_client_reads_takes_one_thread(self) -> None:
        """With a reader, a batch uses only one thread."""
        client = self.client()
        self.put(noise(APART))
        self.assertEqual(1, len(self.held))
        self.held.release()
        self.finish()
        self.successResultOf(client.done)

    def test_a_small_batch_takes_one_thread(self) -> None:
        """A small batch uses only one thread."""
        self.put(noise(APART - 1))
        self.assertEqual(1, len(self.held))
        self.held.release()
        self.assertEqual((APART - 1, APART - 1), (self.digest.seen, self.other.seen))

    def test_wrong_bytes_end_the_spool_when_no_thread_works_any_more(self) -> None:
        """The file is closed after the other digest has ended."""
        for number in range(2):
            self.setUp()
            (self.digest, self.other)[number].bad_after = 0
            self.put(noise(APART))
            self.spool.release()
            self.held.release(1)
            self.assertEqual((None, 1), (self.spool.error, len(self.held)))
            self.held.release()
            self.assertIsInstance(self.spool.error, Corrupt)
            is_opened = number == 1  # the first digest comes before the file, in one thread
            self.assertEqual(is_opened, self.file.closed)


class WritebackTests(SpoolCase):
    def test_the_disk_begins_to_write_large_batches_at_once(self) -> None:
        """The kernel begins to write large batches immediately; small ones wait for the sync."""
        begun: list[tuple[int, int]] = []
        note = lambda _fd, position, count: begun.append((position, count))  # noqa: E731
        self.patch(spool_file, "begin_writeback", note)
        for size in (MUCH, MUCH - 1, 2 * MUCH):
            self.put(noise(size))
        self.finish()
        self.assertEqual([(0, MUCH), (2 * MUCH - 1, 2 * MUCH)], begun)

    def test_missing_kernel_function_is_no_error(self) -> None:
        """If the kernel cannot do this, there is no error: the sync follows."""
        begin_writeback(self.file.fd, 0, 10)
        begin_writeback(-1, 0, 10)
