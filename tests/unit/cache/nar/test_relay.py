"""Relays: a process follows the holder of the lease, and takes its place if it disappears."""

from __future__ import annotations

from attrs import evolve

from ncps.aio.clocks import utc_now
from ncps.aio.spool_reader import HOLD_BACK
from ncps.cache.answers import Outcome
from ncps.cache.cluster import lease_of
from ncps.cache.nar.relay import LOOK_S, SETTLE_S, TURN_S
from ncps.errors import Corrupt, NotFound, Unavailable
from ncps.nix.hashes import sha256_of
from ncps.nix.judge import SLACK
from ncps.ports import Lease
from tests.fakes.client import Client
from tests.fakes.leases import MemoryLeases
from tests.fakes.samples import sample
from tests.fakes.upstream import Script
from tests.unit.cache.rig import PATIENCE_S, CoreCase

SIZE = 300_000
HALF = 150_000
GONE = Script(error=Unavailable("connection refused"))


class RelayCase(CoreCase):
    """Another process, `there`, has the lease of a NAR."""

    def setUp(self) -> None:
        super().setUp()
        self.sample = sample(size=SIZE)
        self.origin.add(self.sample)
        self.key = self.sample.key
        self.learn(self.sample)
        self.there = MemoryLeases("there", beside=self.leases)
        self.lease = self.taken()
        self.peers.file = str(sha256_of(self.sample.file))
        self.peers.line.nars[self.key.url] = self.sample.file

    def taken(self) -> Lease:
        lease = self.get(self.there.try_hold(lease_of(self.key)))
        assert lease is not None
        return lease

    def script(self, *scripts: Script) -> None:
        self.peers.line.scripts.extend(scripts)

    def asked(self) -> list[int]:
        """Offsets of the requests for the NAR to the upstream."""
        return [offset for _, offset in self.origin.asked("nar")]

    def relayed(self) -> list[int]:
        """Offsets of the requests for the NAR to the other process."""
        return [offset for _, offset in self.peers.line.asked("nar")]

    def publish(self) -> None:
        """Let the other process store the NAR."""
        self.store.put(self.key, self.sample.file)
        record = self.catalog.records[self.key]
        assert record is not None
        self.get(
            self.catalog.mark_stored(
                evolve(
                    record,
                    stored_at=utc_now(self.clock),
                    stored_size=len(self.sample.file),
                    stored_tag=self.store.tag(self.key),
                    file_size=len(self.sample.file),
                    file_hash=sha256_of(self.sample.file),
                    encoding=record.compression,
                )
            )
        )

    def end(self) -> None:
        """Let the other process release the lease."""
        self.get(self.lease.release())

    def turns(self, seconds: float) -> None:
        """Let time pass in small steps."""
        for _ in range(int(seconds / TURN_S * 2) + 1):
            self.clock.advance(TURN_S / 2)

    def assertWhole(self, client: Client) -> None:
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file, client.data)


class FollowTests(RelayCase):
    def test_bytes_come_from_the_process_that_fetches_them(self) -> None:
        """The NAR streams from the other process; the upstream gets no further request."""
        self.script(Script(stall_at=HALF))
        client = self.client(self.key)
        self.assertEqual(self.sample.file[:HALF], client.data)
        self.assertEqual(["there"], self.peers.asked)
        self.peers.line.release()
        self.assertWhole(client)
        self.publish()
        self.end()
        self.assertEqual({"relayed": 1}, self.ended)
        self.assertEqual([], self.asked())
        hit, again = self.successResultOf(self.open(self.key))
        self.successResultOf(again.done)
        self.assertEqual((Outcome.HIT, self.sample.file), (hit.outcome, again.data))

    def test_store_is_not_asked_for_what_is_being_fetched(self) -> None:
        """The first byte does not wait for the answer of a bucket that has no such object."""
        self.store.failing = Unavailable("slow")
        client = self.client(self.key)
        self.assertWhole(client)
        self.store.failing = None
        self.publish()
        self.end()

    def test_clients_share_what_is_relayed(self) -> None:
        """Many clients here are one client there, also if one wants a part."""
        self.script(Script(stall_at=HALF))
        first = self.client(self.key)
        second = self.client(self.key, 1000)
        self.assertEqual(self.sample.file[1000:HALF], second.data)
        self.peers.line.release()
        self.assertWhole(first)
        self.assertEqual(self.sample.file[1000:], second.data)
        self.assertEqual([0], self.relayed())
        self.publish()
        self.end()

    def test_end_waits_for_a_verdict_of_our_own(self) -> None:
        """This process judges the bytes of another process like those of an upstream."""
        self.script(Script(lie_at=1000, stall_at=HALF))
        client = self.client(self.key)
        self.peers.line.release()
        self.failureResultOf(client.done, Corrupt)
        self.assertLessEqual(len(client.data), len(self.sample.file) - HOLD_BACK)
        self.end()
        self.turns(2)
        self.assertEqual([0], self.asked(), "fetched anew, by ourselves")
        self.assertEqual({"published": 1}, self.ended)

    def test_nar_that_is_arriving_can_be_followed(self) -> None:
        """Another process gets the file that arrives here, without a fetch for it alone."""
        self.refused(self.nars.arriving_nar(self.key), NotFound)
        self.end()
        self.origin.scripts.append(Script(stall_at=HALF))
        client = self.client(self.key)
        nar = self.get(self.nars.arriving_nar(self.key))
        self.assertEqual(self.peers.file, nar.file)
        follower = Client(self.get(nar.body(1000)))
        self.assertEqual(self.sample.file[1000:HALF], follower.data)
        self.origin.release()
        self.assertWhole(client)
        self.successResultOf(follower.done)
        self.assertEqual(self.sample.file[1000:], follower.data)
        self.assertEqual([0], self.asked())


class TakeOverTests(RelayCase):
    def test_holder_ends_in_the_middle(self) -> None:
        """The bytes here are kept: the rest comes from the upstream, by Range."""
        self.script(Script(cut_at=HALF), GONE)
        client = self.client(self.key)
        self.assertEqual(self.sample.file[:HALF], client.data)
        self.peers.failure = Unavailable("connection refused")
        self.turns(5)
        self.assertEqual([], self.asked(), "the lease is not ours yet")
        self.end()
        self.turns(1)
        self.assertWhole(client)
        self.assertEqual([HALF], self.asked())
        self.assertEqual({"published": 1}, self.ended)
        self.assertEqual(self.sample.file, self.store.objects[self.key])

    def test_connection_breaks_while_the_holder_lives(self) -> None:
        """The process follows the holder again, from the byte that is here."""
        self.script(Script(cut_at=HALF), GONE, Script(cut_at=HALF + 1000))
        client = self.client(self.key)
        self.turns(3)
        self.assertWhole(client)
        self.assertEqual([0, HALF, HALF, HALF + 1000], self.relayed())
        self.publish()
        self.end()
        self.assertEqual([], self.asked())

    def test_holder_ends_before_the_first_byte(self) -> None:
        """Clients wait for the lease, and get the NAR."""
        self.peers.failure = Unavailable("connection refused")
        opening = self.open(self.key)
        self.turns(10)
        self.assertNoResult(opening)
        self.end()
        self.turns(1)
        _, client = self.successResultOf(opening)
        self.assertWhole(client)
        self.assertEqual([0], self.asked())

    def test_holder_that_is_never_reached_nor_gone(self) -> None:
        """After a while clients must come back: no process fetches the NAR twice."""
        self.peers.failure = Unavailable("no route")
        opening = self.open(self.key)
        self.turns(PATIENCE_S - 5)
        self.assertNoResult(opening)
        self.turns(10)
        error = self.failureResultOf(opening, Unavailable).value
        self.assertTrue(error.timed_out)
        self.assertEqual([], self.asked())
        self.end()

    def test_holder_that_is_silent(self) -> None:
        """A process that does not answer is not waited for longer, before or after its bytes."""
        self.peers.is_silent = True
        opening = self.open(self.key)
        self.turns(PATIENCE_S - 5)
        self.assertNoResult(opening)
        self.turns(10)
        self.assertTrue(self.failureResultOf(opening, Unavailable).value.timed_out)
        self.assertEqual((["there"], []), (self.peers.asked, self.asked()))
        self.end()

    def test_holder_that_opens_and_is_silent(self) -> None:
        """A process that has the file and sends no head is not waited for, either."""
        self.script(*[Script(hold=True)] * 9)
        opening = self.open(self.key)
        self.turns(PATIENCE_S + 5)
        self.assertTrue(self.failureResultOf(opening, Unavailable).value.timed_out)
        self.end()

    def test_holder_without_address_is_waited_for(self) -> None:
        """If processes cannot reach each other, the catalog shows when the NAR is stored."""
        self.get(self.lease.release())
        self.there = MemoryLeases("", beside=self.leases)
        self.lease = self.taken()
        opening = self.open(self.key)
        self.turns(5)
        self.assertNoResult(opening)
        self.assertEqual([], self.peers.asked)
        self.publish()
        self.end()
        self.turns(1)
        hit, client = self.successResultOf(opening)
        self.assertWhole(client)
        self.assertEqual((Outcome.HIT, []), (hit.outcome, self.asked()))

    def test_holder_stores_it_while_we_are_cut_off(self) -> None:
        """The rest of the NAR comes from the store."""
        self.script(Script(cut_at=HALF), GONE)
        client = self.client(self.key)
        self.peers.failure = NotFound("not arriving any more")
        self.publish()
        self.end()
        self.turns(1)
        self.assertWhole(client)
        self.assertEqual(([], {"relayed": 1}), (self.asked(), self.ended))

    def test_holder_ends_before_it_publishes(self) -> None:
        """The process that has followed the file to its end publishes it."""
        client = self.client(self.key)
        self.assertWhole(client)
        self.assertEqual({}, self.store.objects)
        self.end()
        self.assertEqual(self.sample.file, self.store.objects[self.key])
        self.assertEqual(({"published": 1}, []), (self.ended, self.asked()))

    def test_holder_never_ends(self) -> None:
        """A completely followed file has been served; the wait to publish it ends."""
        client = self.client(self.key)
        self.assertWhole(client)
        self.clock.advance(SETTLE_S)
        self.assertEqual({"failed": 1}, self.ended)
        self.assertEqual({}, self.store.objects)
        self.end()

    def test_lease_lost_on_the_way(self) -> None:
        """A process that lost the lease publishes only if its successor has not done so."""
        self.end()
        self.origin.scripts.append(Script(stall_at=HALF))
        client = self.client(self.key)
        ours = self.leases.held[lease_of(self.key)]
        ours.lost = True
        self.origin.release()
        self.assertWhole(client)
        self.assertEqual({"published": 1}, self.ended)
        self.assertIsNot(ours, self.leases.held.get(lease_of(self.key)))

    def test_successor_has_stored_it_meanwhile(self) -> None:
        """A process that lost the lease unnoticed does not overwrite its successor's row."""
        self.end()
        self.origin.scripts.append(Script(stall_at=HALF))
        client = self.client(self.key)
        record = self.catalog.records[self.key]
        assert record is not None
        later = self.leases.held[lease_of(self.key)].fence + 1
        theirs = evolve(record, stored_at=utc_now(self.clock), stored_size=7)
        self.get(self.catalog.mark_stored(theirs, later))
        self.origin.release()
        self.assertWhole(client)
        self.assertEqual({"relayed": 1}, self.ended)
        kept = self.catalog.records[self.key]
        assert kept is not None
        self.assertEqual(7, kept.stored_size)


class SlowHolderTests(RelayCase):
    def test_lease_of_a_silent_holder_is_free(self) -> None:
        """The file of a silent holder is left after seconds; the rest comes from the upstream."""
        self.script(Script(stall_at=HALF))
        client = self.client(self.key)
        self.turns(LOOK_S)
        self.assertEqual([], self.asked(), "the lease is not ours yet")
        self.end()
        self.turns(LOOK_S)
        self.assertWhole(client)
        self.assertEqual(([HALF], {"published": 1}), (self.asked(), self.ended))

    def test_lease_of_a_trickling_holder_is_free(self) -> None:
        """The file of a holder that sends only a few bytes from time to time is left, too."""
        self.script(Script(trickles_from=HALF, chunk=100))
        client = self.client(self.key)
        self.end()
        for _ in range(2 * int(LOOK_S)):  # at first it sent fast
            self.turns(1)
            self.peers.line.release()
        self.assertWhole(client)
        self.assertEqual(1, len(self.asked()))
        self.assertLess(HALF, self.asked()[0])

    def test_slow_holder_that_has_its_lease_is_followed(self) -> None:
        """A holder may be as slow as its upstream: the NAR is not fetched twice."""
        self.script(Script(stall_at=HALF))
        client = self.client(self.key)
        self.turns(5 * LOOK_S)
        self.assertEqual(([], [0]), (self.asked(), self.relayed()))
        self.peers.line.release()
        self.assertWhole(client)
        self.publish()
        self.end()

    def test_leases_that_cannot_be_asked_change_nothing(self) -> None:
        """The holder is followed while the backend cannot say whether the lease is free."""
        self.script(Script(stall_at=HALF))
        client = self.client(self.key)
        self.leases.failing = Unavailable("no leases")
        self.turns(2 * LOOK_S)
        self.leases.failing = None
        self.peers.line.release()
        self.assertWhole(client)
        self.publish()
        self.end()

    def test_quick_holder_without_a_lease_is_followed(self) -> None:
        """A process that still sends, and has released the lease, is not disturbed."""
        self.script(Script(trickles_from=HALF, chunk=10_000))
        client = self.client(self.key)
        self.publish()
        self.end()
        for _ in range(20):
            self.turns(1)
            self.peers.line.release()
        self.assertWhole(client)
        self.assertEqual(([], [0]), (self.asked(), self.relayed()))

    def test_endless_holder_is_left(self) -> None:
        """A body longer than the narinfo allows is wrong: this process fetches the NAR anew."""
        record = self.catalog.records[self.key]
        assert record is not None
        self.catalog.records[self.key] = evolve(record, file_size=None)
        self.memory.clear()
        padding = b"\0" * 4 * (SIZE + SLACK)  # which xz takes for nothing
        self.script(Script(total=0, extra=padding))
        opening = self.open(self.key)
        self.assertLess(self.peers.line.sent, 2 * SIZE + 2 * SLACK)
        self.end()
        self.turns(2)
        _, client = self.successResultOf(opening)
        self.assertWhole(client)
        self.assertEqual(([0], {"published": 1}), (self.asked(), self.ended))


class LeaselessTests(RelayCase):
    def test_leases_fail_before_the_first_byte(self) -> None:
        """Without leases nothing is fetched: clients must come back, and learn that immediately."""
        self.leases.failing = Unavailable("no leases")
        self.failureResultOf(self.open(self.key), Unavailable)
        self.leases.failing = None
        self.end()

    def test_leases_fail_in_the_middle(self) -> None:
        """A client in the middle waits for them as it would for an upstream."""
        self.script(Script(cut_at=HALF), GONE)
        client = self.client(self.key)
        self.leases.failing = Unavailable("no leases")
        self.turns(5)
        self.assertNoResult(client.done)
        self.leases.failing = None
        self.end()
        self.turns(5)
        self.assertWhole(client)
        self.assertEqual([HALF], self.asked())
