"""SmallSpool: bytes in memory, hashed without a thread if cheap, shown when right or late."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.small_spool import INLINE_S, PROMPT_S, Budget, SmallSpool
from ncps.aio.spool_reader import Overtaken
from ncps.errors import Corrupt, Unavailable
from ncps.nix.hashes import sha256_of
from ncps.nix.narcheck import FileDigest, NarDigest
from tests.fakes.client import Client
from tests.fakes.stores import MemoryNarStore
from tests.fakes.threads import HeldThreads, InlineThreads
from tests.unit.aio.spool_case import Sha256, noise

SIZE = 100_000
KEY = cast("Any", "a key")


class Estimated(Sha256):
    cost_s = 0.0


class SmallSpoolTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.budget = Budget(2 * SIZE)
        self.digest = Estimated()
        self.threads = HeldThreads()
        self.data = noise(SIZE)

    def new(self) -> SmallSpool:
        assert self.budget.take(SIZE)
        return SmallSpool(
            self.clock,
            workers=self.threads,
            digests=[self.digest],
            total=SIZE,
            budget=self.budget,
        )

    def start(self, coro: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(coro)

    def put(self, spool: SmallSpool, data: bytes) -> None:
        self.successResultOf(self.start(spool.write(data)))

    def test_hashed_in_the_same_turn(self) -> None:
        """Cheap digests need no thread, and see every byte once."""
        spool = self.new()
        self.put(spool, self.data[:10])
        self.put(spool, self.data[10:])
        self.successResultOf(self.start(spool.flush()))
        self.assertEqual((SIZE, SIZE), (spool.length, self.digest.seen))
        self.assertEqual(sha256_of(self.data).digest, self.digest.hash.digest())

    def test_dear_digests_go_to_a_thread(self) -> None:
        """Expensive digests run in a thread."""
        self.digest.cost_s = INLINE_S * 2
        spool = self.new()
        self.put(spool, self.data)
        flushing = self.start(spool.flush())
        self.assertNoResult(flushing)
        self.threads.release()
        self.successResultOf(flushing)
        self.assertEqual(SIZE, spool.length)

    def test_cost_of_digests(self) -> None:
        """The cost of a NAR of unknown size is infinite; xz costs more than zstd."""
        sizes = [NarDigest(each, max_size=1 << 20).cost_s for each in ("none", "zstd", "xz")]
        self.assertEqual(sorted(sizes), sizes)
        self.assertGreater(sizes[2], INLINE_S)
        self.assertEqual((inf, inf), (FileDigest().cost_s, NarDigest("xz").cost_s))

    def test_readers_wait_for_the_verdict(self) -> None:
        """Readers get no byte before the verdict, even if the source pauses."""
        spool = self.new()
        client = Client(spool.reader(5, SIZE - 5))
        self.put(spool, self.data[:50_000])
        self.successResultOf(self.start(spool.flush()))
        self.put(spool, self.data[50_000:])
        self.successResultOf(self.start(spool.flush()))
        self.assertEqual(b"", client.data)
        spool.commit()
        self.successResultOf(client.done)
        self.assertEqual(self.data[5 : SIZE - 5], client.data)

    def test_a_slow_source_is_shown_as_it_comes(self) -> None:
        """After `PROMPT_S` readers get the bytes so far, except the end."""
        spool = self.new()
        client = Client(spool.reader())
        self.clock.advance(PROMPT_S * 2)
        self.put(spool, self.data[:1000])
        self.assertEqual(self.data[:1000], client.data)
        self.put(spool, self.data[1000:])
        self.assertLess(len(client.data), SIZE)
        spool.commit()
        self.successResultOf(client.done)

    def test_a_source_that_stalls_is_shown(self) -> None:
        """Readers get the bytes so far, even if no more come."""
        spool = self.new()
        client = Client(spool.reader())
        self.put(spool, self.data[:1000])
        self.assertEqual(b"", client.data)
        self.clock.advance(PROMPT_S)
        self.assertEqual(self.data[:1000], client.data)

    def test_bytes_keep_their_order_while_a_thread_works(self) -> None:
        """Bytes that come while a thread hashes wait for it."""
        self.digest.cost_s = inf
        spool = self.new()
        self.put(spool, self.data[:1000])
        self.clock.advance(PROMPT_S)
        writing = self.start(spool.write(self.data[1000:]))
        self.assertEqual(1, len(self.threads))
        self.threads.release()
        self.successResultOf(writing)
        self.assertEqual(sha256_of(self.data).digest, self.digest.hash.digest())
        client = Client(spool.reader())
        spool.commit()
        self.successResultOf(client.done)
        self.assertEqual(self.data, client.data)

    def test_wrong_bytes_of_a_source_that_stalls(self) -> None:
        """The next call of the writer raises the error."""
        self.digest.bad_after = 10
        spool = self.new()
        self.put(spool, self.data[:1000])
        self.clock.advance(PROMPT_S)
        self.failureResultOf(self.start(spool.write(b"more")), Corrupt)

    def test_a_spool_that_is_gone_shows_nothing(self) -> None:
        """A closed spool leaves no timer."""
        for end in (SmallSpool.release, SmallSpool.commit):
            spool = self.new()
            self.put(spool, self.data[:1000])
            end(spool)
            self.assertEqual([], self.clock.getDelayedCalls())

    def test_a_slow_source_of_many_packets(self) -> None:
        """Many packets arrive in order, for all readers and for the store."""
        spool, store = self.new(), MemoryNarStore()
        early = Client(spool.reader())
        self.clock.advance(PROMPT_S * 2)
        for begin in range(0, SIZE, 1448):
            self.put(spool, self.data[begin : begin + 1448])
        late = Client(spool.reader(1000))
        spool.commit()
        for client, start in ((early, 0), (late, 1000)):
            self.successResultOf(client.done)
            self.assertEqual(self.data[start:], client.data)
        self.successResultOf(self.start(spool.publish(store, KEY, sha256_of(self.data))))
        self.assertEqual((self.data, bytes), (store.objects[KEY], type(store.objects[KEY])))

    def test_wrong_bytes(self) -> None:
        """Each call of the writer raises the error, and no reader gets a byte."""
        self.digest.bad_after = 10
        spool = self.new()
        client = Client(spool.reader())
        self.put(spool, self.data)
        for _ in range(2):
            self.failureResultOf(self.start(spool.flush()), Corrupt)
        spool.fail(Unavailable("gone"))
        self.failureResultOf(client.done, Unavailable)
        self.assertEqual(b"", client.data)
        with self.assertRaises(Unavailable):
            spool.reader()

    def test_memory_is_counted_until_the_last_reader_leaves(self) -> None:
        """The budget gets the memory back once, after writer and readers have left."""
        spool = self.new()
        reader = spool.reader()
        spool.release()
        spool.release()
        self.assertEqual(SIZE, self.budget.left)
        reader.close()
        self.assertEqual(2 * SIZE, self.budget.left)
        with self.assertRaises(Overtaken):
            spool.reader()

    def test_the_budget_is_kept(self) -> None:
        """Beyond the budget there is no memory."""
        self.assertTrue(self.budget.take(2 * SIZE))
        self.assertFalse(self.budget.take(1))

    def test_published_from_memory(self) -> None:
        """The store gets the bytes, and no file is made."""
        self.threads = cast("Any", InlineThreads())
        spool, store = self.new(), MemoryNarStore()
        self.put(spool, self.data)
        self.successResultOf(self.start(spool.flush()))
        again = Estimated()
        self.successResultOf(self.start(spool.reread(again)))
        self.assertEqual(SIZE, again.seen)
        self.successResultOf(self.start(spool.publish(store, KEY, sha256_of(self.data))))
        self.assertEqual(self.data, store.objects[KEY])
        self.assertEqual((True, ""), (spool.is_kept, spool.keep_error))
        self.assertFalse(Path("a key").exists())
