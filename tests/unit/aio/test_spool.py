"""Spool: one writer, many readers at their own pace; no file is complete before it is right."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any, Self

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred

from ncps.aio.nowait import READ_SIZE
from ncps.aio.spool_reader import HOLD_BACK, SpoolReader
from ncps.errors import Corrupt, NotFound, Unavailable
from ncps.nix.hashes import sha256_of
from tests.fakes.client import Client
from tests.fakes.spoolfile import full_after
from tests.fakes.threads import HeldThreads
from tests.unit.aio.spool_case import MIB, SpoolCase, noise, not_in_memory


class ReadingTests(SpoolCase):
    def test_readers_early_and_late_get_all(self) -> None:
        """An early client and a late one get the same bytes."""
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
        """A slow client slows neither the writer nor another client, and gets all bytes."""
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
        """Clients that resume wait for their bytes, and get exactly these."""
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
        """No client has the whole file before the verdict, even if all bytes are there."""
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

    def test_unknown_total_holds_back_the_last_bytes(self) -> None:
        """If the total is unknown, any byte may be the last: 64 KiB are always held back."""
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
        """The size is known as early as possible."""
        self.assertEqual(5, self.spool.reader(5, 10).size)
        self.spool.total = 100
        self.assertEqual(95, self.spool.reader(5).size)
        self.assertIsNone(self.spool.reader().segment())

    def test_empty_file(self) -> None:
        """A file without bytes is a file."""
        client = self.client()
        self.finish()
        self.successResultOf(client.done)
        self.assertEqual([], client.chunks)

    def test_failure_breaks_readers_off(self) -> None:
        """Clients of a wrong file get an error, never an end."""
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
        """A committed spool stays right."""
        self.spool.fail(Corrupt("first"))
        self.spool.fail(NotFound("second"))
        self.assertIsInstance(self.spool.error, Corrupt)
        other = self.new()
        other.commit()
        other.fail(Corrupt("late"))
        self.assertIsNone(other.error)

    def test_reader_closed_while_waiting_is_woken(self) -> None:
        """A reader that is closed during a wait raises an error instead of ending."""
        reader = self.spool.reader()
        reading = Deferred.fromCoroutine(self.drain(reader))
        self.assertNoResult(reading)
        reader.close()
        reader.close()
        self.failureResultOf(reading, Unavailable)
        self.assertEqual(0, len(self.spool._readers))

    def test_reader_closed_between_chunks_does_not_end_politely(self) -> None:
        """Reading from a closed body raises an error instead of ending."""
        self.put(noise(MIB))
        client = self.client(hold=True)
        client.body.close()
        client.go()
        self.failureResultOf(client.done, Unavailable)

    async def drain(self, reader: AsyncIterator[bytes] | SpoolReader) -> bytes:
        return b"".join([chunk async for chunk in reader])

    def test_cancelled_reader_leaves(self) -> None:
        """A client that leaves during a wait leaves nothing behind."""
        gone, stays = self.client(), self.client()
        gone.done.cancel()
        self.failureResultOf(gone.done, CancelledError)
        self.assertEqual(1, len(self.spool._readers))
        self.put(b"abc")
        self.finish()
        self.successResultOf(stays.done)
        self.assertEqual((b"", b"abc"), (gone.data, stays.data))

    def test_reader_that_ends_others_while_woken_starves_no_reader(self) -> None:
        """All readers get their chunks, even if one of them closes others."""
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

    def test_unreadable_file_fails_only_its_reader(self) -> None:
        """If the disk cannot be read, only this reader gets an error."""
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
        """A thread reads bytes that are not in memory, in order and once."""
        data = noise(3 * READ_SIZE + 7)
        self.put(data)
        self.patch(os, "preadv", not_in_memory)
        early, part = self.client(), self.client(5, 2 * READ_SIZE)
        self.finish()
        for client, wanted in ((early, data), (part, data[5 : 2 * READ_SIZE])):
            self.successResultOf(client.done)
            self.assertEqual(wanted, client.data)

    def test_ten_thousand_chunks_in_one_turn_do_not_recurse(self) -> None:
        """The depth of the stack does not depend on the number of chunks."""

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
        """Every range is delivered exactly, with a file, without one, and with a failing one."""
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


class Forgetful(bytearray):
    """A window that fails by a lack of memory, in one of two ways."""

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
    """A batch that is counted but missing, or the reverse, would move all later bytes."""

    def setUp(self) -> None:
        super().setUp()
        self.spool = self.new(kept=False)

    def assert_spoiled(self, *clients: Client) -> None:
        """Check that no reader gets further bytes, and none waits."""
        for client in clients:
            self.failureResultOf(client.done, MemoryError)
            self.assertTrue(self.content.startswith(client.data))
        self.failureResultOf(self.write(b"more"), MemoryError)
        self.flushLoggedErrors(MemoryError)

    def test_batch_that_finds_no_room(self) -> None:
        """If a batch finds no memory, the spool ends with an error."""
        self.spool._content.window.data = Forgetful("adding")
        self.content = noise(4 * HOLD_BACK)
        client = Client(self.spool.reader(), hold=True)
        self.put(self.content[: 2 * HOLD_BACK])
        self.write(self.content[2 * HOLD_BACK :])
        client.go()
        self.assert_spoiled(client)

    def test_window_that_fails_to_move_on(self) -> None:
        """If the window cannot be trimmed, the spool ends, even after the verdict."""
        self.spool._content.window.data = Forgetful("dropping")
        self.content = noise(2 * READ_SIZE)
        readers = [self.spool.reader() for _ in range(2)]
        self.put(self.content)
        self.spool.commit()
        first, second = [Client(reader, hold=True) for reader in readers]
        first.go()
        self.assert_spoiled(first, second)

    def test_batches_that_cannot_be_joined(self) -> None:
        """If bytes are lost between queue and file, the spool ends."""
        self.threads = threads = HeldThreads()
        self.spool = self.new(kept=False)
        self.content = noise(1000)
        client = Client(self.spool.reader())
        for _ in range(3):
            self.write(self.content)

        class Unjoinable(bytes):
            def __len__(self) -> int:
                raise MemoryError

        self.spool._queue.chunks[0] = Unjoinable()
        threads.release()
        self.assert_spoiled(client)
