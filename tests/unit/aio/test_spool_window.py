"""Spool: what the disk does not take passes through a window in memory."""

from __future__ import annotations

import os

from twisted.internet.defer import CancelledError, Deferred

from ncps.aio.spool import WINDOW_HIGH, Abandoned
from ncps.aio.spool_queue import BATCH_LIMIT, QUEUE_HIGH
from ncps.aio.spool_reader import HOLD_BACK, Overtaken
from ncps.errors import Corrupt, NcpsError, Unavailable
from tests.fakes.spoolfile import full_after
from tests.unit.aio.spool_case import MIB, SpoolCase, noise


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
            held = len(self.spool._content.window) + self.spool._queue.size
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
        """Bytes that no reader wants and no file keeps are not fetched to the end."""
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
        self.assertEqual(0, len(self.spool._content.window))
        behind = self.client(MIB)
        ahead.body.close()
        self.failureResultOf(ahead.done, Unavailable)
        self.put(noise(MIB))
        self.finish()
        self.successResultOf(behind.done)
        self.assertEqual(MIB, len(behind.data))

    def test_late_joiner_is_told_that_its_bytes_have_passed(self) -> None:
        """A reader that comes too late for bytes that were not kept has to fetch them itself."""
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
        """Bytes that a reader of a range has set aside do not leave if the file is wrong."""
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
        """Bytes that were never kept cannot be read afterwards."""
        self.spool = self.new(kept=False)
        self.put(b"abc")
        self.finish()
        self.assertRaises(Overtaken, self.spool.reader)
        self.file.close()
