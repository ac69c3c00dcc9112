"""Spool: one writer, many readers, each at its own pace; nothing complete before it is right."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import AsyncIterator
from random import Random
from typing import Any, Self, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.nowait import READ_SIZE
from ncps.aio.spool import (
    BATCH_LIMIT,
    HOLD_BACK,
    QUEUE_HIGH,
    QUEUE_LOW,
    WINDOW_HIGH,
    Abandoned,
    Overtaken,
    Spool,
)
from ncps.aio.spool_reader import SpoolReader
from ncps.aio.threads import Threads
from ncps.errors import Corrupt, NcpsError, NotFound, Unavailable
from ncps.nix.hashes import sha256_of
from tests.fakes.spoolfile import CountedFile, full_after
from tests.fakes.threads import HeldThreads, InlineThreads

MIB = 1024 * 1024


def not_in_memory(*_: object) -> int:
    raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


def noise(size: int, seed: int = 1) -> bytes:
    return Random(seed).randbytes(size)


class Sha256:
    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self.bad_after: int | None = None
        self.seen = 0

    def feed(self, data: bytes) -> None:
        self.seen += len(data)
        if self.bad_after is not None and self.seen > self.bad_after:
            raise Corrupt("not what it should be")
        self.hash.update(data)


class Client:
    """Reads a body to its end; `hold` makes it stop after each chunk until `go`."""

    def __init__(self, body: SpoolReader, *, hold: bool = False) -> None:
        self.body = body
        self.chunks: list[bytes] = []
        self.hold = hold
        self._held: Deferred[None] | None = None
        self.done = Deferred.fromCoroutine(self._read())

    @property
    def data(self) -> bytes:
        return b"".join(self.chunks)

    async def _read(self) -> None:
        try:
            async for chunk in self.body:
                self.chunks.append(chunk)
                if self.hold:
                    self._held = Deferred()
                    await self._held
        finally:
            self.body.close()

    def go(self) -> None:
        held, self._held = self._held, None
        assert held is not None
        held.callback(None)


class SpoolCase(SynchronousTestCase):
    threads: Threads

    def setUp(self) -> None:
        self.threads = InlineThreads()
        self.digest = Sha256()
        self.file = CountedFile()
        self.addCleanup(self.file.path.unlink, missing_ok=True)
        self.spool = self.new()

    def new(self, *, total: int | None = None, kept: bool = True) -> Spool:
        return Spool(
            file=(lambda: self.file) if kept else None,
            workers=self.threads,
            digests=(self.digest,),
            total=total,
            keep_error="" if kept else "disk full",
        )

    def write(self, data: bytes, spool: Spool | None = None) -> Deferred[None]:
        return Deferred.fromCoroutine((spool or self.spool).write(data))

    def put(self, data: bytes) -> None:
        self.successResultOf(self.write(data))

    def finish(self) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.spool.flush()))
        self.spool.commit()
        self.spool.release()

    def client(self, start: int = 0, stop: int | None = None, *, hold: bool = False) -> Client:
        return Client(self.spool.reader(start, stop), hold=hold)


class ReadingTests(SpoolCase):
    def test_readers_early_and_late_get_all(self) -> None:
        """The first client and one that comes when all is there get the same bytes."""
        data = noise(3 * MIB)
        early = self.client()
        self.put(data[:MIB])
        middle = self.client()
        self.put(data[MIB:])
        self.successResultOf(Deferred.fromCoroutine(self.spool.flush()))
        self.spool.commit()
        late = self.client()
        self.spool.release()
        for client in (early, middle, late):
            self.successResultOf(client.done)
            self.assertEqual(data, client.data)
        self.assertEqual(sha256_of(data).digest, self.digest.hash.digest())
        self.assertEqual(self.digest.seen, len(data))

    def test_readers_at_different_paces(self) -> None:
        """A slow client neither slows the writer nor another client, and gets all in the end."""
        data = noise(4 * MIB)
        self.spool.total = len(data)
        slow, fast = self.client(hold=True), self.client()
        for start in range(0, len(data), MIB):
            self.put(data[start : start + MIB])
        self.assertEqual(data[:-HOLD_BACK], fast.data)
        self.assertLessEqual(len(slow.data), READ_SIZE)
        self.finish()
        self.successResultOf(fast.done)
        self.assertEqual(0, self.file.closed)
        while not slow.done.called:
            slow.go()
        self.successResultOf(slow.done)
        self.assertEqual([data, data], [slow.data, fast.data])
        self.assertEqual(1, self.file.closed)

    def test_ranges_of_a_growing_file(self) -> None:
        """Clients that resume wait for their bytes and get exactly those."""
        data = noise(MIB)
        self.spool.total = len(data)
        spans = [(0, 1), (5, 300_000), (MIB - 1, MIB), (500_000, None), (MIB, None), (7, 7)]
        clients = [self.client(start, stop) for start, stop in spans]
        for start in range(0, len(data), 100_000):
            self.put(data[start : start + 100_000])
        self.finish()
        for client, (start, stop) in zip(clients, spans, strict=True):
            self.successResultOf(client.done)
            self.assertEqual(data[start:stop], client.data)

    def test_stop_beyond_the_end_means_the_end(self) -> None:
        """A range that reaches too far ends with the file."""
        client = self.client(2, 10**9)
        self.put(b"abcdef")
        self.finish()
        self.successResultOf(client.done)
        self.assertEqual(b"cdef", client.data)

    def test_last_64_kib_wait_for_commit(self) -> None:
        """Nobody has the whole before it was found right, also when all bytes are here."""
        data = noise(MIB)
        self.spool.total = len(data)
        whole, part, tail = self.client(), self.client(10, 500_000), self.client(MIB - 10)
        self.put(data)
        self.assertEqual(data[:-HOLD_BACK], whole.data)
        self.assertEqual(data[10 : 500_000 - HOLD_BACK], part.data)
        self.assertEqual(b"", tail.data)
        self.finish()
        for client in (whole, part, tail):
            self.successResultOf(client.done)
        self.assertEqual(data, whole.data)
        self.assertEqual(data[10:500_000], part.data)
        self.assertEqual(data[-10:], tail.data)

    def test_unknown_total_holds_back_from_what_is_there(self) -> None:
        """Where the end is unknown any byte may be the last: 64 KiB are kept at all times."""
        client = self.client()
        self.assertIsNone(client.body.size)
        self.put(noise(HOLD_BACK))
        self.assertEqual(b"", client.data)
        self.put(b"x")
        self.assertEqual(1, len(client.data))
        self.finish()
        self.successResultOf(client.done)
        self.assertEqual(HOLD_BACK + 1, client.body.size)
        self.assertEqual(HOLD_BACK + 1, len(client.data))

    def test_size_is_known_from_total_or_range(self) -> None:
        """The length for the head of the answer is known as soon as it can be."""
        self.assertEqual(5, self.spool.reader(5, 10).size)
        self.spool.total = 100
        self.assertEqual(95, self.spool.reader(5).size)
        self.assertIsNone(self.spool.reader().segment())

    def test_empty_file(self) -> None:
        """Nothing is a file, too."""
        client = self.client()
        self.finish()
        self.successResultOf(client.done)
        self.assertEqual([], client.chunks)

    def test_failure_breaks_readers_off(self) -> None:
        """Clients of what turned out wrong see an error, never an end."""
        client, late = self.client(), self.client(hold=True)
        self.put(noise(MIB))
        got = client.data
        self.spool.fail(Corrupt("wrong"))
        self.failureResultOf(client.done, Corrupt)
        late.go()
        self.failureResultOf(late.done, Corrupt)
        self.assertEqual(got, client.data)
        self.assertRaises(Corrupt, self.spool.reader)
        self.spool.release()
        self.assertEqual(1, self.file.closed)

    def test_only_the_first_failure_counts_and_none_after_commit(self) -> None:
        """What was found right stays right."""
        self.spool.fail(Corrupt("first"))
        self.spool.fail(NotFound("second"))
        self.assertIsInstance(self.spool.error, Corrupt)
        other = self.new()
        other.commit()
        other.fail(Corrupt("late"))
        self.assertIsNone(other.error)

    def test_reader_closed_while_waiting_is_woken(self) -> None:
        """A reader that is closed under somebody's feet raises instead of ending politely."""
        reader = self.spool.reader()
        reading = Deferred.fromCoroutine(self.drain(reader))
        self.assertNoResult(reading)
        reader.close()
        reader.close()
        self.failureResultOf(reading, Unavailable)
        self.assertEqual(0, self.spool.readers)

    def test_reader_closed_between_chunks_does_not_end_politely(self) -> None:
        """Whoever goes on reading a closed body is told that this is not its end."""
        self.put(noise(MIB))
        client = self.client(hold=True)
        client.body.close()
        client.go()
        self.failureResultOf(client.done, Unavailable)

    async def drain(self, reader: AsyncIterator[bytes] | SpoolReader) -> bytes:
        return b"".join([chunk async for chunk in reader])

    def test_cancelled_reader_leaves(self) -> None:
        """A client that goes away in the middle of a wait leaves nothing behind."""
        gone, stays = self.client(), self.client()
        gone.done.cancel()
        self.failureResultOf(gone.done, CancelledError)
        self.assertEqual(1, self.spool.readers)
        self.put(b"abc")
        self.finish()
        self.successResultOf(stays.done)
        self.assertEqual((b"", b"abc"), (gone.data, stays.data))

    def test_reader_that_ends_others_while_woken_starves_nobody(self) -> None:
        """Whatever one client's chunk sets off, the others get theirs."""
        clients: list[Client] = []

        async def ending() -> None:
            async for _ in self.spool.reader():
                clients[0].done.cancel()
                clients[1].body.close()

        first = Deferred.fromCoroutine(ending())
        clients += [self.client(), self.client(), self.client()]
        self.put(noise(2 * HOLD_BACK))
        self.failureResultOf(clients[0].done, CancelledError)
        self.failureResultOf(clients[1].done, Unavailable)
        self.assertEqual(HOLD_BACK, len(clients[2].data))
        self.finish()
        self.successResultOf(first)
        self.successResultOf(clients[2].done)

    def test_unreadable_file_is_the_readers_trouble(self) -> None:
        """A disk that does not give its bytes back is an error for this reader."""
        self.put(noise(2 * HOLD_BACK))

        def pread(*_: object) -> bytes:
            raise OSError(5, "Input/output error")

        self.patch(os, "preadv", pread)
        self.failureResultOf(self.client().done, Unavailable)
        self.patch(os, "preadv", lambda *_: 0)
        self.failureResultOf(self.client().done, Unavailable)
        self.patch(os, "preadv", not_in_memory)
        self.patch(os, "pread", pread)
        self.failureResultOf(self.client().done, Unavailable)
        self.patch(os, "pread", lambda *_: b"")
        self.failureResultOf(self.client().done, Unavailable)

    def test_bytes_that_are_not_in_memory_are_read_by_threads(self) -> None:
        """A slow client gets what the kernel has let go of, in order and once."""
        data = noise(3 * READ_SIZE + 7)
        self.put(data)
        self.patch(os, "preadv", not_in_memory)
        early, part = self.client(), self.client(5, 2 * READ_SIZE)
        self.finish()
        for client, wanted in ((early, data), (part, data[5 : 2 * READ_SIZE])):
            self.successResultOf(client.done)
            self.assertEqual(wanted, client.data)

    def test_ten_thousand_chunks_at_once_do_not_recurse(self) -> None:
        """However much is there at once, the stack stays flat."""

        async def pour() -> None:
            for _ in range(10_000):
                await self.spool.write(b"x" * 100)
            await self.spool.flush()

        client = self.client()
        self.successResultOf(Deferred.fromCoroutine(pour()))
        self.finish()
        self.successResultOf(client.done)
        self.assertEqual(10_000 * 100, len(client.data))

    @given(
        sizes=st.lists(st.integers(0, 200_000), max_size=12),
        kept=st.booleans(),
        full_at=st.integers(0, 1_000_000),
        start=st.integers(0, 300_000),
        length=st.none() | st.integers(1, 300_000),
        knows_total=st.booleans(),
    )
    def test_any_chunks_any_range_any_disk(
        self,
        sizes: list[int],
        kept: bool,
        full_at: int,
        start: int,
        length: int | None,
        knows_total: bool,
    ) -> None:
        """Every range is delivered exactly, whether the file is kept, lost or never was."""
        self.setUp()
        data = noise(sum(sizes))
        stop = None if length is None else start + length
        self.patch(os, "pwrite", full_after(full_at))
        self.spool = self.new(total=len(data) if knows_total else None, kept=kept)
        whole, part = self.client(), self.client(start, stop)
        position = 0
        for size in sizes:
            self.put(data[position : position + size])
            position += size
        self.finish()
        for client in (whole, part):
            self.successResultOf(client.done)
        self.assertEqual(data, whole.data)
        self.assertEqual(data[start:stop], part.data)
        if not kept:
            self.file.close()
        self.assertEqual(1, self.file.closed)


class WritingTests(SpoolCase):
    def setUp(self) -> None:
        super().setUp()
        self.held = self.threads = HeldThreads()
        self.spool = self.new()

    def test_one_batch_at_a_time_in_order(self) -> None:
        """Bytes are written and hashed in order, never two batches at once."""
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
        """A disk that lags behind stops the source at 8 MiB, and lets it go on at 4."""
        writes = [self.write(noise(MIB)) for _ in range(QUEUE_HIGH // MIB)]
        for write in writes:
            self.successResultOf(write)
        blocked = self.write(b"x")
        self.assertNoResult(blocked)
        while self.spool._queued > QUEUE_LOW:
            self.assertNoResult(blocked)
            self.held.release(1)
        self.successResultOf(blocked)

    def test_millions_of_tiny_chunks_are_queued_in_linear_time(self) -> None:
        """A source that sends byte by byte costs no more than its bytes."""

        async def drip() -> None:
            for _ in range(300_000):
                await self.spool.write(b"x")

        self.successResultOf(Deferred.fromCoroutine(drip()))
        self.held.release()
        self.assertEqual(300_000, self.spool.length)

    def test_writer_blocked_at_the_bound_hears_of_failure(self) -> None:
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
        """Wrong bytes are noticed on the way; what readers are told is the writer's decision."""
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
        """Who leaves while a thread reads for him takes the file along only when that has ended."""
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
        """A disk that is slow to make a file keeps nobody waiting but the download."""
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
        """Where nothing came at all, nothing can be published all the same."""
        flushing = Deferred.fromCoroutine(self.spool.flush())
        self.held.release()
        self.successResultOf(flushing)
        self.assertEqual(0, self.spool.spooled(sha256_of(b"")).size)

    def test_file_is_closed_after_a_batch_that_failed(self) -> None:
        """A batch that ends in an error still lets the descriptor go."""
        self.digest.bad_after = 3
        self.put(b"abc")
        self.held.release()
        self.put(b"def")
        self.spool.release()
        self.held.release()
        self.assertEqual(1, self.file.closed)

    def test_file_outlives_the_writer_until_the_last_reader(self) -> None:
        """A slow client reads on after the download has ended and its file was unlinked."""
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
        """The descriptor stays as long as somebody may read."""
        self.put(b"abc")
        self.held.release()
        reader = self.spool.reader()
        self.finish()
        self.assertEqual(0, self.file.closed)
        reader.close()
        self.held.release()
        self.assertEqual(1, self.file.closed)


class StreamingThroughTests(SpoolCase):
    """The disk is full, or was from the start."""

    def fill(self, limit: int) -> None:
        self.patch(os, "pwrite", full_after(limit))

    def test_disk_full_in_the_middle_is_not_noticed_by_clients(self) -> None:
        """Clients get all bytes; only the keeping is off, and there is a reason to log."""
        data = noise(3 * MIB)
        self.fill(MIB + 17)
        client = self.client()
        for start in range(0, len(data), 300_000):
            self.put(data[start : start + 300_000])
        self.finish()
        self.successResultOf(client.done)
        self.assertEqual(data, client.data)
        self.assertFalse(self.spool.is_kept)
        self.assertEqual("No space left on device", self.spool.keep_error)
        self.assertEqual(1, self.file.closed)

    def test_no_file_at_all(self) -> None:
        """A store without room from the start streams through just the same."""
        data = noise(2 * MIB)
        self.spool = self.new(total=len(data), kept=False)
        client, part = self.client(), self.client(10, 20)
        self.put(data)
        self.finish()
        self.successResultOf(client.done)
        self.successResultOf(part.done)
        self.assertEqual((data, data[10:20]), (client.data, part.data))
        self.assertEqual("disk full", self.spool.keep_error)
        self.file.close()

    def test_slowest_reader_holds_the_writer(self) -> None:
        """Without a disk the source comes at the pace of the slowest client; memory is bounded."""
        self.fill(0)
        data = noise(24 * MIB)
        slow, fast = self.client(hold=True), self.client()
        pouring = Deferred.fromCoroutine(self.pour(data))
        self.assertNoResult(pouring)
        bound = WINDOW_HIGH + BATCH_LIMIT + QUEUE_HIGH + MIB
        while not pouring.called:
            held = len(self.spool._window) + self.spool._queued
            self.assertLessEqual(held, bound)
            slow.go()
        self.successResultOf(pouring)
        self.finish()
        self.successResultOf(fast.done)
        while not slow.done.called:
            slow.go()
        self.assertEqual([data, data], [slow.data, fast.data])

    async def pour(self, data: bytes, step: int = MIB) -> None:
        for start in range(0, len(data), step):
            await self.spool.write(data[start : start + step])
        await self.spool.flush()

    def test_slowest_reader_that_leaves_lets_the_writer_go_on(self) -> None:
        """A stalled client that is cut off does not keep the others waiting."""
        self.fill(0)
        slow, fast = self.client(hold=True), self.client()
        pouring = Deferred.fromCoroutine(self.pour(noise(20 * MIB)))
        self.assertNoResult(pouring)
        slow.done.cancel()
        self.failureResultOf(slow.done, CancelledError)
        self.successResultOf(pouring)
        self.assertEqual(20 * MIB - HOLD_BACK, len(fast.data))

    def test_nobody_reads_and_nothing_is_kept(self) -> None:
        """Bytes that nobody wants and nothing keeps are not fetched to the end."""
        self.fill(0)
        for _ in range((WINDOW_HIGH + BATCH_LIMIT) // MIB):
            self.write(noise(MIB))
        self.failureResultOf(self.write(b"x" * QUEUE_HIGH), Abandoned)
        self.assertTrue(issubclass(Abandoned, NcpsError))

    def test_last_reader_leaves_while_the_writer_waits(self) -> None:
        """When the last client goes, the writer that waited for it is told."""
        self.fill(0)
        client = self.client(hold=True)
        pouring = Deferred.fromCoroutine(self.pour(noise(20 * MIB)))
        self.assertNoResult(pouring)
        client.done.cancel()
        self.failureResultOf(client.done, CancelledError)
        self.failureResultOf(pouring, Abandoned)

    def test_closing_reader_after_the_window_ran_empty(self) -> None:
        """A client that is done leaves no trace in what the others wait for."""
        self.fill(0)
        ahead = self.client(5 * MIB)
        self.put(noise(MIB))
        self.assertEqual(0, len(self.spool._window))
        behind = self.client(MIB)
        ahead.body.close()
        self.failureResultOf(ahead.done, Unavailable)
        self.put(noise(MIB))
        self.finish()
        self.successResultOf(behind.done)
        self.assertEqual(MIB, len(behind.data))

    def test_late_joiner_is_told_that_its_bytes_have_passed(self) -> None:
        """Who comes too late for bytes that were not kept has to fetch them itself."""
        self.fill(MIB)
        client = self.client()
        for _ in range(3):
            self.put(noise(MIB))
        self.assertRaises(Overtaken, self.spool.reader)
        self.assertRaises(Overtaken, self.spool.reader, MIB + 5)
        tail = self.client(3 * MIB - HOLD_BACK)
        self.put(b"end")
        self.finish()
        self.successResultOf(client.done)
        self.successResultOf(tail.done)
        self.assertEqual(HOLD_BACK + 3, len(tail.data))

    def test_joiner_in_time_reads_file_and_window(self) -> None:
        """As long as nothing has passed, a second client may still join from the start."""
        data = noise(2 * MIB)
        self.fill(MIB)
        first = self.client(hold=True)
        self.put(data)
        second = self.client()
        self.finish()
        self.successResultOf(second.done)
        while not first.done.called:
            first.go()
        self.assertEqual([data, data], [first.data, second.data])

    def test_short_range_does_not_deadlock_with_its_own_commit(self) -> None:
        """A client of a short range waits for the verdict without holding up the file."""
        data = noise(16 * MIB)
        self.fill(0)
        self.spool.total = len(data)
        part, whole = self.client(1000, 2000), self.client()
        self.successResultOf(Deferred.fromCoroutine(self.pour(data)))
        self.assertEqual(b"", part.data)
        self.finish()
        self.successResultOf(part.done)
        self.successResultOf(whole.done)
        self.assertEqual(data[1000:2000], part.data)
        self.assertEqual(data, whole.data)

    def test_range_alone_does_not_deadlock(self) -> None:
        """The same with the range's client alone, its bytes half in the file."""
        data = noise(16 * MIB)
        self.fill(1500)
        part = self.client(1000, 2000)
        for start in range(0, len(data), MIB):
            self.put(data[start : start + MIB])
        self.finish()
        self.successResultOf(part.done)
        self.assertEqual(data[1000:2000], part.data)

    def test_failure_after_the_tail_was_taken_delivers_none_of_it(self) -> None:
        """What a range's client has set aside is not handed out if the file is wrong."""
        self.fill(0)
        part = self.client(0, 10)
        self.put(noise(MIB))
        self.spool.fail(Corrupt("wrong"))
        self.failureResultOf(part.done, Corrupt)
        self.assertEqual(b"", part.data)

    def test_two_hundred_readers_of_what_is_not_kept(self) -> None:
        """Many clients of a big file on a full disk cost time in proportion, and little memory."""
        self.fill(0)
        counts = [0] * 200

        async def count(number: int) -> None:
            async for chunk in self.spool.reader():
                counts[number] += len(chunk)

        clients = [Deferred.fromCoroutine(count(number)) for number in range(200)]
        for _ in range(20):
            self.put(noise(100_000))
        self.finish()
        for client in clients:
            self.successResultOf(client)
        self.assertEqual([20 * 100_000] * 200, counts)

    def test_spool_without_file_and_reader_is_gone_after_release(self) -> None:
        """What was never kept is not to be had afterwards."""
        self.spool = self.new(kept=False)
        self.put(b"abc")
        self.finish()
        self.assertRaises(Overtaken, self.spool.reader)
        self.file.close()


class ThreadsGoneTests(SpoolCase):
    def test_threads_that_have_stopped_end_the_writing(self) -> None:
        """At shutdown the writer hears that nobody writes any more."""

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
        """What was open when the threads stopped is closed all the same."""

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


class Forgetful(bytearray):
    """A window that fails for want of memory, in one of two ways."""

    def __init__(self, failing: str) -> None:
        super().__init__()
        self.failing = failing

    def __iadd__(self, data: Any) -> Self:  # type: ignore[misc]
        if self.failing == "adding" and self:
            raise MemoryError
        self.extend(data)
        return self

    def __delitem__(self, where: Any) -> None:
        super().__delitem__(where)
        if self.failing == "dropping" and range(*where.indices(len(self) + 1)):
            raise MemoryError


class NoMemoryTests(SpoolCase):
    """A batch that is counted and not there, or there and not counted, would move all others."""

    def setUp(self) -> None:
        super().setUp()
        self.spool = self.new(kept=False)

    def assert_spoiled(self, *clients: Client) -> None:
        """Check that nobody is given anything more, and nobody waits."""
        for client in clients:
            self.failureResultOf(client.done, MemoryError)
            self.assertTrue(self.content.startswith(client.data))
        self.failureResultOf(self.write(b"more"), MemoryError)
        self.flushLoggedErrors(MemoryError)

    def test_batch_that_finds_no_room(self) -> None:
        """Its length is not known, its digest right: only an end is honest."""
        self.spool._window = Forgetful("adding")
        self.content = noise(4 * HOLD_BACK)
        client = Client(self.spool.reader(), hold=True)
        self.put(self.content[: 2 * HOLD_BACK])
        self.write(self.content[2 * HOLD_BACK :])
        client.go()
        self.assert_spoiled(client)

    def test_window_that_fails_to_move_on(self) -> None:
        """All readers would get other bytes than they think, also after the verdict."""
        self.spool._window = Forgetful("dropping")
        self.content = noise(2 * READ_SIZE)
        readers = [self.spool.reader() for _ in range(2)]
        self.put(self.content)
        self.spool.commit()
        first, second = [Client(reader, hold=True) for reader in readers]
        first.go()
        self.assert_spoiled(first, second)

    def test_batches_that_cannot_be_joined(self) -> None:
        """What was taken from the queue and is nowhere else ends it."""
        self.threads = threads = HeldThreads()
        self.spool = self.new(kept=False)
        self.content = noise(1000)
        client = Client(self.spool.reader())
        for _ in range(3):
            self.write(self.content)

        class Unjoinable(bytes):
            def __len__(self) -> int:
                raise MemoryError

        self.spool._queue[0] = Unjoinable()
        threads.release()
        self.assert_spoiled(client)
