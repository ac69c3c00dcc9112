"""Small NARs: fetched into memory, with the outcomes of large ones.

The cases of the other modules run once more here, with NARs that count as small: every upstream
that fails, lies or is slow, clients that come and go, ranges, full disks and other processes. Where
a case looks at a client that has a part before the whole is there, small NARs differ: such a client
has nothing yet. Those cases are left out by name, and their counterparts are in `SmallTests`.
"""

from __future__ import annotations

from unittest.mock import patch

from ncps.aio.small_spool import PROMPT_S
from ncps.cache.answers import Resized
from ncps.errors import Corrupt, StorageFull, Unavailable
from ncps.ports import Stat
from tests.fakes.client import Client
from tests.fakes.upstream import Script
from tests.unit.cache.nar import (
    test_adopt,
    test_false_facts,
    test_fetch,
    test_heal,
    test_other_compressor,
    test_part,
    test_publish,
    test_relay,
    test_serve,
)
from tests.unit.cache.nar.rig import NarsCase
from tests.unit.cache.rig import CoreCase

SMALL = 1 << 20


def small(case: type[CoreCase], *without: str) -> type[CoreCase]:
    """Make the same tests for small NARs, without those that watch a NAR as it grows."""
    kept = {name: value for name, value in vars(case).items() if name not in without}
    assert len(kept) + len(without) == len(vars(case))
    kept |= {"small_size": SMALL, "__module__": __name__, "__qualname__": f"Small{case.__name__}"}
    return type(f"Small{case.__name__}", case.__bases__, kept)


class SmallTests(NarsCase):
    small_size = SMALL

    @property
    def size(self) -> int:
        return len(self.sample.file)

    def test_no_byte_before_the_verdict(self) -> None:
        """A client gets its first byte when all bytes were found right; nothing is on disk."""
        self.script(Script(stall_at=self.size - 1))
        client = self.client(self.key)
        self.assertEqual(b"", client.data)
        self.origin.release()
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file, client.data)
        self.assertEqual([], self.files)
        self.assertStored()

    def test_a_slow_upstream_is_passed_on(self) -> None:
        """After a quarter of a second, clients get the bytes so far, without the end."""
        self.script(Script(chunk=1000, trickles_from=200_000))
        client = self.client(self.key)
        self.assertEqual(b"", client.data)
        self.clock.advance(PROMPT_S * 2)
        self.origin.release()
        self.assertEqual(self.sample.file[:201_000], client.data)
        while not client.done.called:
            self.origin.release()
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file, client.data)

    def test_wrong_bytes_reach_no_client(self) -> None:
        """A client gets only the next upstream's bytes, complete and without an error."""
        self.both()
        self.script(Script(lie_at=1000))
        self.assertEqual(self.sample.file, self.download(self.key))
        self.assertStored()

    def test_wrong_bytes_everywhere(self) -> None:
        """If no upstream has right bytes, a client gets an error and no byte."""
        self.origin.scripts.extend([Script(lie_at=1000)] * 10)
        self.failureResultOf(self.open(self.key), Corrupt)
        self.assertNotStored()

    def test_clients_at_once_share_one_transfer(self) -> None:
        """Two hundred clients of one NAR, with any range, are one fetch."""
        self.script(Script(stall_at=100_000))
        clients = [self.client(self.key, n, 200_000 + n) for n in range(200)]
        clients[0].leave()
        self.origin.release()
        for n, client in enumerate(clients[1:], 1):
            self.successResultOf(client.done)
            self.assertEqual(self.sample.file[n : 200_000 + n], client.data)
        self.assertEqual((1, 0), (len(self.asked()), len(self.files)))

    def test_served_from_memory_until_it_is_stored(self) -> None:
        """A client that comes between the answer and the store gets the bytes from memory."""
        self.core.publication.beat.pause_s = 1.0
        self.assertEqual(self.sample.file, self.download(self.key))
        self.assertEqual({}, self.store.objects)
        self.assertEqual(self.sample.file[5:10], self.client(self.key, 5, 10).data)
        self.assertEqual([], self.store.bodies)
        self.assertEqual(self.size, (1 << 24) - self.budget.left)
        self.clock.advance(1.0)
        self.assertStored()
        self.assertEqual([0], self.asked())

    def test_neighbours_are_stored_together(self) -> None:
        """NARs that arrive close together are stored in the same turn."""
        self.core.publication.beat.pause_s = 0.02
        self.download(self.key)
        self.clock.advance(0.01)
        self.assertEqual({}, self.store.objects)
        self.clock.advance(0.01)
        self.assertStored()

    def test_stopped_before_it_is_stored(self) -> None:
        """A daemon that ends before that leaves neither bytes nor a row; the next one fetches."""
        self.core.publication.beat.pause_s = 1.0
        self.download(self.key)
        stopping = self.start(self.tasks.stop(0))
        self.clock.advance(0)
        self.successResultOf(stopping)
        self.clock.advance(1.0)
        self.assertNotStored()
        self.restart()
        self.assertEqual(self.sample.file, self.download(self.key))
        self.assertEqual([0, 0], self.asked())

    def test_a_full_disk_is_no_trouble(self) -> None:
        """Bytes that cannot be stored are served nevertheless."""

        async def put_small(*_: object) -> Stat:
            raise StorageFull("disk full")

        self.script(Script(stall_at=1000))
        client = self.client(self.key)
        with patch.object(self.store, "put_small", put_small):
            self.origin.release()
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file, client.data)
        self.assertEqual({"unkept": 1}, self.ended)

    def test_a_large_crowd_does_not_fill_the_memory(self) -> None:
        """Without room in memory, a small NAR is in a file, like a large one."""
        taken = self.budget.left
        self.budget.take(taken)
        self.assertEqual(self.sample.file, self.download(self.key))
        self.assertEqual(1, len(self.files))
        self.budget.give(taken)

    def test_a_reader_holds_memory_until_it_leaves(self) -> None:
        """The bytes of a slow client count after they were stored, until the client ends."""
        self.script(Script(stall_at=1000))
        _, client = self.successResultOf(self.open(self.key, hold=True))
        self.origin.release()
        self.assertStored()
        self.assertEqual(self.size, (1 << 24) - self.budget.left)
        client.leave()
        self.assertEqual(1 << 24, self.budget.left)

    def test_stopped_before_the_first_head(self) -> None:
        """The memory of a download that fails after its path was blocked is free again."""
        self.script(Script(hold=True, cut_at=1000))
        self.origin.otherwise = Script(error=Corrupt("416"))
        opening = self.open(self.key)
        self.core.running.stop(self.key, Unavailable("blocked"))
        self.failureResultOf(opening, Unavailable)
        self.origin.release()
        self.assertEqual((0, 1 << 24), (self.admission.running, self.budget.left))

    def test_an_upstream_that_breaks_off(self) -> None:
        """The received bytes stay, and the next upstream is asked for the rest."""
        self.both()
        self.script(Script(cut_at=100_000), Script(error=Unavailable("busy")))
        self.assertEqual(self.sample.file, self.download(self.key))
        self.assertEqual(([0, 100_000], [100_000]), (self.asked(), self.asked(self.mirror)))

    def test_an_error_after_the_head_is_an_error(self) -> None:
        """A NAR that breaks off for good immediately ends in an error, without a byte of it."""
        self.script(Script(cut_at=1000), *[Script(error=Unavailable("busy"))] * 500)
        client = self.client(self.key)
        self.assertEqual(b"", client.data)
        for _ in range(100):
            self.clock.advance(1)
        self.failureResultOf(client.done, Unavailable)
        self.assertEqual(b"", client.data)


class SmallAdoptionTests(test_adopt.AdoptionTests):
    small_size = SMALL


SmallFileHashTests = small(
    test_false_facts.FileHashTests,
    "test_file_that_cannot_be_kept_is_not_looked_into",
)


class SmallUrlTests(test_false_facts.UrlTests):
    small_size = SMALL


class SmallPartTests(test_part.PartTests):
    small_size = SMALL


class SmallFoundOutTests(test_part.FoundOutTests):
    small_size = SMALL


class SmallFileSizeTests(test_false_facts.FileSizeTests):
    small_size = SMALL


class SmallLengthTests(test_false_facts.LengthTests):
    small_size = SMALL


SmallResumeTests = small(
    test_fetch.ResumeTests,
    "test_mirror_is_asked_for_the_very_same_file_only",
    "test_other_file_of_the_same_nar_is_taken_from_its_start",
)


SmallWrongBytesTests = small(
    test_fetch.WrongBytesTests,
    "test_wrong_bytes_that_were_sent_are_said_to_be_wrong",
    "test_wrong_hash_with_two_sources",
)


class SmallHealingTests(test_heal.HealingTests):
    small_size = SMALL


SmallOtherCompressorTests = small(
    test_other_compressor.OtherCompressorTests,
    "test_clients_that_have_some_get_nothing_else",
    "test_others_that_had_wrong_bytes_change_nothing_for_them",
)


class SmallOtherFileTests(test_other_compressor.OtherCompressorCase):
    """Clients of a small NAR have no byte before the verdict: another file can take its place."""

    small_size = SMALL

    def test_clients_of_a_file_that_breaks_off_get_the_other_one(self) -> None:
        """Each client gets the whole other file, or its part, and nothing of the first one."""
        self.origin.scripts.append(Script(hold=True, stall_at=100_000))
        opening = self.open(self.sample.key)
        self.origin.release()
        _, client = self.successResultOf(opening)
        self.assertEqual(b"", client.data)
        self.origin.otherwise = Script(error=Unavailable("reset"))
        self.origin.release(Unavailable("reset"))
        self.clock.pump([1.0] * 5)
        self.failureResultOf(client.done, Resized)  # no head was sent
        self.assertEqual(b"", client.data)
        self.assertEqual(self.other.file, self.download(self.sample.key))

    def test_wrong_bytes_make_way_for_the_other_file(self) -> None:
        """No client has received any of them."""
        self.origin.otherwise = Script(lie_at=50_000)
        self.assertEqual(self.other.file, self.download(self.sample.key))


class SmallAdmissionTests(test_publish.AdmissionTests):
    small_size = SMALL


class SmallFenceTests(test_publish.FenceTests):
    small_size = SMALL


SmallFullDiskTests = small(
    test_publish.FullDiskTests,
    "test_disk_that_fills_up_on_the_way",
    "test_no_room_for_a_file_streams_through",
)


SmallFollowTests = small(
    test_relay.FollowTests,
    "test_bytes_come_from_the_process_that_fetches_them",
    "test_clients_share_what_is_relayed",
    "test_end_waits_for_a_verdict_of_our_own",
    "test_nar_that_is_arriving_can_be_followed",
)


SmallTakeOverTests = small(
    test_relay.TakeOverTests,
    "test_holder_ends_in_the_middle",
)


class SmallRelayTests(test_relay.RelayCase):
    """Small NARs of another process: no byte before the verdict, here and there."""

    small_size = SMALL

    def test_clients_share_what_is_relayed(self) -> None:
        """All clients here are one client there; nobody asks the upstream once more."""
        self.script(Script(stall_at=test_relay.HALF))
        first, second = self.client(self.key), self.client(self.key, 1000)
        self.assertEqual((b"", b""), (first.data, second.data))
        self.peers.line.release()
        self.assertWhole(first)
        self.assertEqual(self.sample.file[1000:], second.data)
        self.publish()
        self.end()
        self.assertEqual(([0], []), (self.relayed(), self.asked()))
        self.assertEqual({"relayed": 1}, self.ended)

    def test_wrong_bytes_of_another_process_reach_no_client(self) -> None:
        """They are fetched again when the lease is free, for the same client."""
        self.script(Script(lie_at=1000, stall_at=test_relay.HALF))
        client = self.client(self.key)
        self.peers.line.release()
        self.assertEqual(b"", client.data)
        self.end()
        self.turns(2)
        self.assertWhole(client)
        self.assertEqual({"published": 1}, self.ended)

    def test_holder_ends_in_the_middle(self) -> None:
        """The bytes here are kept: the rest comes from the upstream, by Range."""
        self.script(Script(cut_at=test_relay.HALF), test_relay.GONE)
        client = self.client(self.key)
        self.peers.failure = Unavailable("connection refused")
        self.turns(5)
        self.assertEqual([], self.asked(), "the lease is not ours yet")
        self.end()
        self.turns(1)
        self.assertWhole(client)
        self.assertEqual([test_relay.HALF], self.asked())
        self.assertEqual(self.sample.file, self.store.objects[self.key])

    def test_right_bytes_that_arrive_here_go_to_another_process(self) -> None:
        """It gets no byte that may be wrong, and needs no fetch of its own."""
        self.end()
        self.origin.scripts.append(Script(stall_at=test_relay.HALF))
        client = self.client(self.key)
        nar = self.get(self.nars.arriving_nar(self.key))
        follower = Client(self.get(nar.body(1000)))
        self.assertEqual(b"", follower.data)
        self.origin.release()
        self.assertWhole(client)
        self.successResultOf(follower.done)
        self.assertEqual(self.sample.file[1000:], follower.data)
        self.assertEqual([0], self.asked())


class SmallSlowHolderTests(test_relay.SlowHolderTests):
    small_size = SMALL


SmallMissTests = small(
    test_serve.MissTests,
    "test_last_bytes_wait_for_the_verdict",
)


SmallManyTests = small(
    test_serve.ManyTests,
    "test_two_hundred_clients",
)
