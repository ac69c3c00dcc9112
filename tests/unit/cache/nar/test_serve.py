"""Nars and downloads: one fetch for all clients, resumed, verified, published; healed if lost."""

from __future__ import annotations

import os
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred

from ncps.aio.spool import HOLD_BACK, WINDOW_HIGH
from ncps.cache.answers import Absent, Outcome, WrongBytesSent
from ncps.cache.cluster import lease_of
from ncps.cache.nar.download import MAX_RESTARTS
from ncps.codec import encoder
from ncps.errors import Busy, Corrupt, NotFound, StorageFull, Unavailable
from ncps.nix.hashes import sha256_of
from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import NarKey
from ncps.ports import Body, NarRecord
from tests.fakes.catalog import MemoryCatalog
from tests.fakes.samples import sample
from tests.fakes.spoolfile import full_after
from tests.fakes.threads import HeldThreads
from tests.fakes.upstream import HONEST, Script, ScriptedUpstream
from tests.unit.cache.rig import PATIENCE_S, Client, CoreCase

SIZE = 300_000


class NarsCase(CoreCase):
    def setUp(self) -> None:
        super().setUp()
        self.sample = sample(size=SIZE)
        self.origin.add(self.sample)
        self.key = self.sample.key
        self.learn(self.sample)

    def both(self) -> None:
        """Let the mirror have the same file."""
        self.mirror.add(self.sample)

    def script(self, *scripts: Script) -> None:
        self.origin.scripts.extend(scripts)

    def asked(self, upstream: ScriptedUpstream | None = None) -> list[int]:
        """Offsets of the NAR asked for."""
        return [offset for _, offset in (upstream or self.origin).asked("nar")]

    def begun(
        self, key: NarKey, start: int = 0, stop: int | None = None, *, script: Script
    ) -> Client:
        """A client that is there when the first head comes."""
        self.origin.scripts.appendleft(script)
        opening = self.open(key, start, stop)
        self.assertNoResult(opening)
        self.origin.release()
        _, client = self.successResultOf(opening)
        return client

    def record(self) -> NarRecord:
        record = self.catalog.records[self.key]
        assert record is not None
        return record

    def assertStored(self) -> None:
        self.assertEqual(self.sample.file, self.store.objects[self.key])
        self.assertTrue(self.record().is_stored)
        self.assertEqual("published", self.ended[-1])

    def assertNotStored(self) -> None:
        self.assertEqual({}, self.store.objects)
        self.assertFalse(any(record.is_stored for record in self.catalog.records.values()))


class MissTests(NarsCase):
    def test_miss_is_fetched_served_and_stored(self) -> None:
        """A client gets the NAR while it arrives, and the next one gets it from the store."""
        nar, client = self.successResultOf(self.open(self.key))
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file, client.data)
        self.assertEqual(
            (Outcome.MISS, "a.example.org", len(self.sample.file), self.key),
            (nar.outcome, nar.upstream, nar.size, nar.key),
        )
        self.assertStored()
        record = self.record()
        self.assertEqual(
            (len(self.sample.file), sha256_of(self.sample.file), "xz", record.stored_at),
            (record.stored_size, record.file_hash, record.encoding, record.verified_at),
        )
        self.origin.is_away = True
        hit, again = self.successResultOf(self.open(self.key))
        self.successResultOf(again.done)
        self.assertEqual((Outcome.HIT, self.sample.file), (hit.outcome, again.data))
        self.assertEqual(len(self.sample.file), self.get(hit.known_size()))
        self.assertEqual([0], self.asked())
        nar.close()
        hit.close()

    def test_sidecar_is_kept_beside_it(self) -> None:
        """With the NAR its narinfo is put into the store, as the upstream gave it."""
        self.download(self.key)
        text = self.sidecars.texts[self.sample.digest]
        self.assertIn(b"NcpsUpstream: http://a.example.org\n", text)
        self.assertTrue(text.startswith(self.sample.narinfo.render()))

    def test_zstd_is_verified_while_it_arrives(self) -> None:
        """Where it is cheap NarHash is checked before anything is published."""
        self.sample = sample("z", SIZE, "zstd")
        self.origin.add(self.sample)
        self.key = self.sample.key
        self.learn(self.sample)
        self.download(self.key)
        self.assertStored()
        self.assertIsNotNone(self.record().verified_at)

    def test_many_clients_one_fetch(self) -> None:
        """Clients that come while it arrives share the fetch, each with its own range."""
        self.script(Script(stall_at=100_000))
        first = self.client(self.key)
        nar, second = self.successResultOf(self.open(self.key, 50_000, 60_000))
        self.assertEqual((Outcome.COALESCED, 1), (nar.outcome, self.nars.arriving))
        self.assertTrue(self.nars.is_arriving(self.key))
        self.origin.release()
        for client in (first, second):
            self.successResultOf(client.done)
        self.assertEqual(self.sample.file, first.data)
        self.assertEqual(self.sample.file[50_000:60_000], second.data)
        self.assertEqual([0], self.asked())
        self.assertEqual(0, self.nars.arriving)

    def test_clients_wait_together_for_the_head(self) -> None:
        """Clients that come before the first byte wait for the same answer."""
        self.script(Script(hold=True))
        opening = [self.open(self.key) for _ in range(3)]
        opening[0].cancel()
        opening[0].addErrback(lambda _: None)
        self.origin.release()
        for one in opening[1:]:
            _, client = self.successResultOf(one)
            self.successResultOf(client.done)
        self.assertEqual([0], self.asked())

    def test_all_clients_leave_and_it_is_stored_all_the_same(self) -> None:
        """A download goes on when nobody waits for it."""
        self.script(Script(stall_at=100_000))
        clients = [self.client(self.key) for _ in range(2)]
        for client in clients:
            client.leave()
        self.origin.release()
        self.assertStored()

    def test_slow_client_outlives_the_download(self) -> None:
        """A client that reads slowly gets all, long after the file was renamed into the store."""
        _, client = self.successResultOf(self.open(self.key, hold=True))
        self.assertStored()
        while not client.done.called:
            client.go()
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file, client.data)

    def test_last_bytes_wait_for_the_verdict(self) -> None:
        """No client has a whole file before its hash was found right."""
        self.script(Script(stall_at=len(self.sample.file)))
        client = self.client(self.key)
        self.assertEqual(len(self.sample.file) - HOLD_BACK, len(client.data))
        self.origin.release()
        self.successResultOf(client.done)

    def test_uncompressed_may_be_compressed_on_the_wire(self) -> None:
        """Only for a NAR without compression a Content-Encoding is welcome."""
        plain = sample("plain", 100_000, "none")
        self.origin.add(plain)
        self.learn(plain)
        self.origin.otherwise = Script(total=0)
        self.assertEqual(plain.file, self.download(plain.key))
        self.download(self.key)
        self.assertEqual([True, False], self.origin.encodings)
        self.assertIsNotNone(self.catalog.records[plain.key].verified_at)

    def test_hash_missing_in_narinfo_is_found_out(self) -> None:
        """Without FileHash the NarHash decides, and the narinfo is completed afterwards."""
        bare = sample("bare", SIZE).altered(file_hash=None, file_size=None)
        self.origin.add(bare)
        self.learn(bare)
        self.origin.otherwise = Script(total=0)
        _, client = self.successResultOf(self.open(bare.key))
        self.successResultOf(client.done)
        self.assertIsNotNone(self.catalog.records[bare.key].verified_at)
        text = self.get(self.narinfos.get(bare.digest)).text
        self.assertIn(f"FileHash: {sha256_of(bare.file)}\n".encode(), text)
        self.assertIn(f"FileSize: {len(bare.file)}\n".encode(), text)

    def test_size_unknown_until_the_end_can_be_waited_for(self) -> None:
        """Who needs the size, for a range, waits until it is known."""
        bare = sample("bare", SIZE).altered(file_hash=None, file_size=None)
        self.origin.add(bare)
        self.learn(bare)
        self.script(Script(total=0, stall_at=100_000))
        nar, client = self.successResultOf(self.open(bare.key))
        self.assertIsNone(nar.size)
        self.assertIsNone(client.body.size)
        self.assertIsNone(client.body.segment())
        sizing = self.start(nar.known_size())
        self.assertNoResult(sizing)
        self.origin.release()
        self.assertEqual(len(bare.file), self.successResultOf(sizing))
        self.assertEqual(len(bare.file), self.get(nar.known_size()))

    def test_body_taken_after_the_end_comes_from_the_store(self) -> None:
        """Who opens the body late finds it, though the download has ended meanwhile."""
        self.script(Script(stall_at=100_000))
        opening = self.start(self.nars.open(self.key))
        nar = self.successResultOf(opening)
        self.origin.release()
        self.assertStored()
        client = Client(self.get(nar.body(5, 10)))
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file[5:10], client.data)

    def test_stored_by_a_peer_while_waiting_for_the_lease(self) -> None:
        """If another replica was quicker, its NAR is served and nothing is fetched."""
        lease = self.get(self.leases.try_hold(lease_of(self.key)))
        assert lease is not None
        opening, sizing = self.open(self.key), self.start(self.nars.stat(self.key))
        self.assertNoResult(opening)
        self.store.put(self.key, self.sample.file)
        stored = evolve(self.record(), stored_at=self.now(), stored_size=len(self.sample.file))
        self.get(self.catalog.mark_stored(stored))
        self.get(lease.release())
        nar, client = self.successResultOf(opening)
        self.assertEqual((Outcome.HIT, self.sample.file), (nar.outcome, client.data))
        self.assertEqual((len(self.sample.file), Outcome.HIT), self.successResultOf(sizing))
        self.assertEqual([], self.asked())

    def now(self) -> Any:
        from ncps.aio.clocks import utc_now

        return utc_now(self.clock)

    def test_leases_that_cannot_be_had(self) -> None:
        """Without leases a download is refused for now."""
        self.leases.failing = Unavailable("redis")
        self.failureResultOf(self.open(self.key), Unavailable)
        self.assertEqual(["failed"], self.ended)

    def test_stop_cuts_what_is_under_way(self) -> None:
        """At shutdown clients are broken off and nothing partial is stored."""
        self.script(Script(stall_at=100_000))
        client = self.client(self.key)
        stopping = self.start(self.tasks.stop(5))
        self.clock.advance(5)
        self.successResultOf(stopping)
        self.failureResultOf(client.done, Unavailable)
        self.assertNotStored()
        self.assertEqual(["cancelled"], self.ended)

    def test_stop_while_waiting_for_the_head(self) -> None:
        """Clients without a byte are told "later"."""
        self.script(Script(hold=True))
        opening = self.open(self.key)
        stopping = self.start(self.tasks.stop(0))
        self.clock.advance(0)
        self.successResultOf(stopping)
        self.failureResultOf(opening, Unavailable)

    def test_stop_in_a_pause_between_rounds(self) -> None:
        """The same while the download only waits to try again."""
        self.origin.otherwise = Script(error=Unavailable("away"))
        opening = self.open(self.key)
        self.assertNoResult(opening)
        stopping = self.start(self.tasks.stop(0))
        self.clock.advance(0)
        self.successResultOf(stopping)
        self.failureResultOf(opening, Unavailable)


class ResumeTests(NarsCase):
    def test_cut_goes_on_at_the_same_upstream(self) -> None:
        """A connection that breaks is continued from the byte there is; clients see no seam."""
        self.script(Script(cut_at=100_000), Script(cut_at=200_000))
        self.assertEqual(self.sample.file, self.download(self.key))
        self.assertEqual([0, 100_000, 200_000], self.asked())
        self.assertStored()

    def test_cut_after_the_last_byte_is_no_matter(self) -> None:
        """If only the end of the connection was rude, all bytes are there."""
        self.script(Script(cut_at=len(self.sample.file)))
        self.assertEqual(self.sample.file, self.download(self.key))
        self.assertEqual([0], self.asked())

    def test_every_byte_is_a_good_place_to_cut(self) -> None:
        """Wherever it breaks, the bytes are right."""
        for at in (0, 1, 65_535, 65_536, HOLD_BACK, len(self.sample.file) - 1):
            self.setUp()
            self.script(Script(cut_at=at))
            client = self.client(self.key)
            self.clock.pump([0.5] * 4)
            self.successResultOf(client.done)
            self.assertEqual(self.sample.file, client.data)
            self.assertStored()

    def test_stall_goes_on_at_the_same_upstream_then_at_the_next(self) -> None:
        """A body that stalls is given up by its idle time, and continued where it can be."""
        self.both()
        self.script(Script(stall_at=100_000), Script(stall_at=100_000))
        client = self.client(self.key)
        idle = Unavailable("no byte for 20 s", timed_out=True)
        self.origin.release(idle)
        self.assertNoResult(client.done)
        self.origin.release(idle)
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file, client.data)
        self.assertEqual([0, 100_000], self.asked())
        self.assertEqual([100_000], self.asked(self.mirror))

    def test_range_ignored_is_skipped(self) -> None:
        """An upstream that always sends from the start is read past what is there."""
        self.script(Script(cut_at=100_001), Script(ignores_range=True, chunk=999))
        self.assertEqual(self.sample.file, self.download(self.key))
        self.assertStored()

    def test_polite_early_end_goes_on(self) -> None:
        """A body that ends too early without an error is continued like one that broke."""
        self.script(Script(end_at=100_000))
        self.assertEqual(self.sample.file, self.download(self.key))
        self.assertEqual([0, 100_000], self.asked())

    def test_shorter_file_is_another_file(self) -> None:
        """An upstream whose file is too short is not asked again and again."""
        self.both()
        self.script(Script(total=0, end_at=100_000), Script(error=Corrupt("ends before 100000")))
        self.assertEqual(self.sample.file, self.download(self.key))
        self.assertEqual(([0, 100_000], [100_000]), (self.asked(), self.asked(self.mirror)))

    def test_wrong_total_is_not_begun(self) -> None:
        """A file announced with another size is another file."""
        self.both()
        self.script(Script(total=7))
        self.assertEqual(self.sample.file, self.download(self.key))
        self.assertEqual([0], self.asked(self.mirror))
        self.assertStored()

    def test_wrong_total_everywhere_is_corrupt(self) -> None:
        """If nobody has the right file, that is an error, and the narinfo is asked for anew."""
        self.origin.otherwise = Script(total=7)
        self.failureResultOf(self.open(self.key), Corrupt)
        self.assertEqual({}, self.catalog.entries)
        self.assertNotStored()

    def test_pause_in_the_middle_is_waited_out(self) -> None:
        """The only upstream goes away in mid-file and comes back: clients see a pause."""
        self.origin.otherwise = Script(error=Unavailable("refused"))
        client = self.begun(self.key, script=Script(hold=True, cut_at=100_000))
        self.clock.pump([1.0] * int(PATIENCE_S - 15))
        self.assertNoResult(client.done)
        self.origin.otherwise = HONEST
        self.clock.pump([1.0] * 13)
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file, client.data)

    def test_patience_ends(self) -> None:
        """If no byte comes for the time set, clients are broken off and the next one may try."""
        self.script(Script(cut_at=100_000))
        self.origin.is_away = False
        self.origin.otherwise = Script(error=Unavailable("refused"))
        client = self.client(self.key)
        self.clock.pump([1.0] * int(PATIENCE_S + 5))
        self.failureResultOf(client.done, Unavailable)
        self.assertEqual(["failed"], self.ended)
        self.assertNotStored()
        self.origin.otherwise = HONEST
        self.clock.advance(60)
        self.assertEqual(self.sample.file, self.download(self.key))

    def test_progress_renews_the_patience(self) -> None:
        """As long as bytes come now and then, nobody gives up."""
        step = 50_000
        self.origin.otherwise = Script(error=Unavailable("refused"))
        client = self.begun(self.key, script=Script(hold=True, cut_at=step))
        for at in range(2 * step, len(self.sample.file), step):
            self.clock.pump([1.0] * 15)
            self.script(Script(cut_at=at))
            self.clock.pump([1.0] * 15)
        self.assertNoResult(client.done)
        self.origin.otherwise = HONEST
        self.clock.pump([1.0] * 15)
        self.successResultOf(client.done)

    def test_no_byte_at_all_is_told_soon(self) -> None:
        """Before the first byte clients wait for a status: two rounds and no more."""
        self.origin.otherwise = Script(error=Unavailable("refused"))
        opening = self.open(self.key)
        self.assertNoResult(opening)
        self.clock.advance(0.3)
        self.failureResultOf(opening, Unavailable)
        self.assertEqual([0, 0], self.asked())

    def test_vanished_in_the_middle(self) -> None:
        """An upstream that deletes the file under us cannot be waited for."""
        self.script(*[Script(error=NotFound("404"))] * 2)  # the second after it was reminded
        client = self.begun(self.key, script=Script(hold=True, cut_at=100_000))
        self.failureResultOf(client.done, NotFound)
        self.assertNotStored()

    def test_mirror_is_asked_for_the_very_same_file_only(self) -> None:
        """A mirror that compressed it otherwise is no help in mid-file."""
        other = encoder("xz", 0)
        file = other.feed(self.sample.nar) + other.finish()
        url = NarKey(sha256_of(file).nix32, "xz").url
        theirs = self.sample.altered(url=url, file_hash=sha256_of(file), file_size=len(file))
        self.mirror.add(evolve(theirs, file=file))
        self.script(Script(error=Corrupt("416")))
        client = self.begun(self.key, script=Script(hold=True, cut_at=100_000))
        self.failureResultOf(client.done, Corrupt)
        self.assertEqual([], self.asked(self.mirror))

    def test_other_file_of_the_same_nar_is_taken_from_its_start(self) -> None:
        """Where only NarHash is known another file will do, but not to go on with."""
        bare = sample("bare", SIZE).altered(file_hash=None, file_size=None)
        maker = encoder("xz", 0)
        other = evolve(
            bare.altered(url="https://cdn.example.org/uuid"),
            file=maker.feed(bare.nar) + maker.finish(),
        )
        self.origin.add(bare)
        self.mirror.add(other)
        self.learn(bare)
        self.script(Script(error=Corrupt("416")))
        begun = self.begun(bare.key, script=Script(hold=True, stall_at=100_000))
        late = self.client(bare.key, 150_000)
        self.origin.release(Unavailable("idle"))
        self.failureResultOf(begun.done, Corrupt)
        self.successResultOf(late.done)
        self.assertEqual(other.file[150_000:], late.data)
        self.assertEqual([0], self.asked(self.mirror))

    def test_database_trouble_is_not_the_mirrors(self) -> None:
        """If our own database fails, no upstream is held to be sick."""
        self.both()
        self.script(Script(stall_at=100_000), Script(error=Corrupt("416")))
        client = self.client(self.key)
        self.catalog.failing = Unavailable("database is locked")
        for _ in range(3):
            self.origin.release(Unavailable("idle"))
            self.clock.pump([1.0] * 3)
        self.assertEqual("", self.upstreams.candidates[1].health.last_error)
        self.catalog.failing = None
        self.clock.pump([1.0] * 3)
        self.successResultOf(client.done)


class WrongBytesTests(NarsCase):
    is_eager = False

    def test_wrong_hash_of_the_only_source(self) -> None:
        """Wrong bytes are never complete at a client and never stored; the next request tries."""
        client = self.begun(self.key, script=Script(hold=True, lie_at=10))
        self.failureResultOf(client.done, Corrupt)
        self.assertLess(len(client.data), len(self.sample.file))
        self.assertNotStored()
        self.assertEqual({}, self.catalog.entries)
        self.learn(self.sample)
        self.assertEqual(self.sample.file, self.download(self.key))

    def test_wrong_bytes_that_were_sent_are_said_to_be_wrong(self) -> None:
        """A client that was cut off with wrong bytes is told apart from all others."""
        client = self.begun(self.key, script=Script(hold=True, lie_at=10))
        self.failureResultOf(client.done, WrongBytesSent)

    def test_wrong_hash_of_an_unknown_nar_is_tried_again(self) -> None:
        """Wrong bytes are no absence: without a narinfo, too, the next request tries."""
        self.catalog = MemoryCatalog()
        self.restart()
        self.key = self.sample.conventional
        client = self.begun(self.key, script=Script(hold=True, lie_at=10))
        self.failureResultOf(client.done, Corrupt)
        self.assertEqual(self.sample.file, self.download(self.key))

    def test_wrong_hash_with_two_sources(self) -> None:
        """Clients without a byte get the right file from the other source, those with break off."""
        small = sample("small", HOLD_BACK - 2000)
        for upstream in (self.origin, self.mirror):
            upstream.add(small)
        self.learn(small)
        self.script(Script(lie_at=10, stall_at=len(small.file)))
        client = self.client(small.key)
        part = self.client(small.key, 5, 50)
        self.origin.release()
        for one in (client, part):
            self.successResultOf(one.done)
        self.assertEqual((small.file, small.file[5:50]), (client.data, part.data))
        self.assertEqual(small.file, self.store.objects[small.key])

        self.both()
        self.script(Script(hold=True, lie_at=10))
        opening = [self.open(self.key), self.open(self.key, len(self.sample.file) - 5)]
        self.origin.release()
        (_, begun), (_, late) = [self.successResultOf(one) for one in opening]
        self.failureResultOf(begun.done, Corrupt)
        self.successResultOf(late.done)
        self.assertStored()

    def test_lying_source_is_not_asked_again(self) -> None:
        """Within a download a source that alone has lied is shunned."""
        self.both()
        self.mirror.scripts.extend([Script(cut_at=0), Script(cut_at=0)])
        self.origin.otherwise = Script(lie_at=10)
        client = self.client(self.key, len(self.sample.file) - 5)
        self.clock.pump([0.5] * 10)
        self.successResultOf(client.done)
        self.assertEqual([0], self.asked())

    def test_mixed_lies_are_disentangled(self) -> None:
        """If two sources gave the wrong bytes together, each is tried alone."""
        self.both()
        size = len(self.sample.file)
        self.script(Script(error=Unavailable("x")))
        first = Script(hold=True, lie_at=10, cut_at=100_000)
        client = self.begun(self.key, size - 5, script=first)
        self.clock.pump([0.5] * 10)
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file[-5:], client.data)
        self.assertStored()

    def test_endless_lies_end(self) -> None:
        """Sources that take turns in lying are given up after some fresh starts."""
        self.both()
        lies = Script(lie_at=10, cut_at=100_000)
        self.script(*[Script(error=Unavailable("x")), lies] * 9)
        self.mirror.scripts.extend([Script(lie_at=200_000)] * 9)
        first = evolve(lies, hold=True)
        client = self.begun(self.key, len(self.sample.file) - 5, script=first)
        self.clock.pump([0.5] * 200)
        self.failureResultOf(client.done, Corrupt, Unavailable)
        self.assertLessEqual(len(self.asked(self.mirror)), MAX_RESTARTS + 2)
        self.assertNotStored()

    def test_longer_file_is_wrong(self) -> None:
        """A body that does not end where it should is not right, whatever came before."""
        self.both()
        self.script(Script(total=0, extra=b"more"))
        client = self.client(self.key, 5, 50)
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file[5:50], client.data)
        self.assertStored()

    def test_body_whose_decoding_fails(self) -> None:
        """A source whose wire encoding breaks is left for the next, from where it got to."""
        self.both()
        self.script(Script(cut_at=None, end_at=100_000, failure=Corrupt("bad zstd")))
        self.assertEqual(self.sample.file, self.download(self.key))
        self.assertEqual(([0], [100_000]), (self.asked(), self.asked(self.mirror)))

    def test_digest_that_notices_early(self) -> None:
        """What cannot be decompressed is noticed in the middle, and fetched elsewhere."""
        self.sample = sample("z", SIZE, "zstd")
        self.key = self.sample.key
        self.origin.add(self.sample)
        self.both()
        self.learn(self.sample)
        self.script(Script(lie_at=0, chunk=1000))
        client = self.client(self.key, SIZE - 100, SIZE - 50)
        self.successResultOf(client.done)
        self.assertEqual([0], self.asked(self.mirror))
        self.assertStored()

    def test_digest_that_notices_while_the_connection_breaks(self) -> None:
        """The same when the source breaks off at that very moment."""
        self.sample = sample("z", SIZE, "zstd")
        self.key = self.sample.key
        self.origin.add(self.sample)
        self.both()
        held = self.threads = HeldThreads()
        self.restart()
        self.learn(self.sample)
        self.script(Script(lie_at=0, cut_at=50_000))
        opening = self.open(self.key, SIZE - 100, SIZE - 50)
        held.release()
        _, client = self.successResultOf(opening)
        held.release()
        self.successResultOf(client.done)
        self.assertEqual(([0], [0]), (self.asked(), self.asked(self.mirror)))

    def test_wrong_nar_hash(self) -> None:
        """A file that is right by its FileHash but holds another NAR is wrong."""
        self.sample = sample("z", SIZE, "zstd")
        bad = self.sample.altered(nar_hash=sha256_of(b"other"))
        short = self.sample.altered(nar_size=SIZE + 1)
        for one in (bad, short):
            self.setUp()
            self.origin.add(one)
            self.learn(one)
            self.failureResultOf(self.begun(one.key, script=Script(hold=True)).done, Corrupt)
            self.assertNotStored()

    def test_moved_reader_that_is_closed_meanwhile(self) -> None:
        """A client that leaves between two spools leaves nothing open."""
        small = sample("small", HOLD_BACK - 2000)
        for upstream in (self.origin, self.mirror):
            upstream.add(small)
        self.learn(small)
        self.script(Script(lie_at=10, stall_at=len(small.file)))
        self.mirror.scripts.append(Script(hold=True, stall_at=100))
        client, other = self.client(small.key), self.client(small.key)
        self.origin.release()
        client.body.close()
        other.leave()
        self.mirror.release()
        self.mirror.release()
        self.failureResultOf(client.done, Unavailable)

    def test_unverifiable_file_is_refused(self) -> None:
        """A compression that we cannot read is not believed; without any FileHash not passed on."""
        odd = sample("odd", SIZE).altered(file_hash=None, compression="lzip")
        self.origin.add(odd)
        self.refused(self.narinfos.get(odd.digest), NotFound)
        self.vetting = evolve(self.vetting, trusted=())
        self.restart()
        self.learn(odd)
        self.failureResultOf(self.open(odd.key), Corrupt)


class UnknownTests(NarsCase):
    """NARs that no narinfo is known of."""

    def setUp(self) -> None:
        super().setUp()
        self.catalog = MemoryCatalog()
        self.restart()
        self.key = self.sample.conventional

    def test_name_is_taken_for_the_hash(self) -> None:
        """A NAR asked for out of the blue is fetched by its conventional URL and verified."""
        self.assertEqual(self.sample.file, self.download(self.key))
        self.assertStored()
        self.assertEqual([self.key.url], [url for url, _ in self.origin.asked("nar")])

    def test_absent_is_remembered(self) -> None:
        """An absence is told, remembered for a while, and asked about again afterwards."""
        self.origin.nars.clear()
        self.failureResultOf(self.open(self.key), NotFound)
        error = self.failureResultOf(self.open(self.key), Absent).value
        self.assertIs(Outcome.NEGATIVE, error.outcome)
        self.assertEqual([0], self.asked())
        self.clock.advance(30)
        self.failureResultOf(self.open(self.key), NotFound)
        self.assertEqual([0, 0], self.asked())

    def test_narinfo_ends_the_absence(self) -> None:
        """A narinfo that points at it shows that it is there after all."""
        file = self.origin.nars.pop(self.sample.url)
        self.failureResultOf(self.open(self.key), NotFound)
        self.origin.nars[self.sample.url] = file
        self.learn(self.sample)
        self.assertEqual(self.sample.file, self.download(self.key))

    def test_could_not_tell_is_not_remembered(self) -> None:
        """A failing upstream is no absence."""
        self.origin.is_away = True
        opening = self.open(self.key)
        self.clock.advance(1)
        self.failureResultOf(opening, Unavailable)
        self.origin.is_away = False
        self.assertEqual(self.sample.file, self.download(self.key))

    def test_name_that_is_no_hash(self) -> None:
        """A name that spells no SHA-256 cannot exist; no upstream is bothered."""
        self.failureResultOf(self.open(NarKey("z" * 52, "xz")), NotFound)
        self.assertEqual([], self.asked())

    def test_narinfo_only_in_memory_is_as_good(self) -> None:
        """If the narinfo could not be recorded, the NAR behind it is fetched all the same."""
        self.catalog.failing_writes = StorageFull("no space")
        url = "https://cdn.example.org/x/uuid"
        odd = self.sample.altered(url=url)
        self.origin.narinfos[odd.digest] = odd.narinfo
        self.origin.nars[url] = odd.file
        served = self.get(self.narinfos.get(odd.digest))
        key = NarKey(odd.narinfo.nar_hash.nix32, "xz")
        self.assertIn(key.url.encode(), served.text)
        self.catalog.failing_writes = None
        self.assertEqual(odd.file, self.download(key))


class AbsentTests(NarsCase):
    def test_nar_that_is_gone_takes_its_narinfo_along(self) -> None:
        """No NAR behind a narinfo: 404, and the narinfo is no longer shown as a hit."""
        self.origin.nars.clear()
        self.failureResultOf(self.open(self.key), NotFound)
        self.assertEqual({}, self.catalog.entries)
        self.assertIsNone(self.memory.get(self.sample.digest))
        self.learn(self.sample)
        self.assertEqual(3, len(self.origin.asked("narinfo")))  # once to remind it of the NAR

    def test_upstream_that_has_forgotten_its_nar_is_reminded(self) -> None:
        """A cache like us knows its NARs by their narinfos: that one is asked for again, once."""
        for is_head in (True, False):
            self.setUp()
            self.origin.nars.clear()
            find = self.origin.narinfo

            async def narinfo(digest: str) -> NarInfo:
                self.origin.add(self.sample)
                return await find(digest)  # noqa: B023 - called within the loop

            self.patch(self.origin, "narinfo", narinfo)
            self.get(self.nars.stat(self.key) if is_head else self.nars.open(self.key))
            self.assertEqual(2, len(self.origin.asked("narinfo")))
        self.assertEqual(self.sample.file, self.download(self.key))

    def test_stat_says_what_open_would(self) -> None:
        """HEAD is answered from the store, from a download, or by asking upstreams.

        It says a size that is signed or was computed, and no other: no bytes would find it out.
        """
        size = len(self.sample.file)
        self.assertEqual((None, Outcome.MISS), self.get(self.nars.stat(self.key)))
        self.script(Script(stall_at=100_000))
        client = self.client(self.key)
        self.assertEqual((None, Outcome.COALESCED), self.get(self.nars.stat(self.key)))
        self.origin.release()
        self.successResultOf(client.done)
        self.assertEqual((size, Outcome.HIT), self.get(self.nars.stat(self.key)))
        self.assertEqual([(self.sample.url, 0)], self.origin.asked("stat"))

    def test_stat_of_what_nobody_has(self) -> None:
        """HEAD is 404 or "later" by the same rules, and asks all upstreams."""
        self.origin.nars.clear()
        self.refused(self.nars.stat(self.key), NotFound)
        self.mirror.add(self.sample)
        self.assertEqual(Outcome.MISS, self.get(self.nars.stat(self.key))[1])
        self.mirror.is_away = True
        self.refused(self.nars.stat(self.key), Unavailable)

    def test_stat_of_a_size_that_is_signed(self) -> None:
        """An uncompressed NAR has NarSize, before its bytes are here and while they arrive."""
        plain = sample("plain", SIZE, "none")
        self.origin.add(plain)
        self.learn(plain)
        self.assertEqual((SIZE, Outcome.MISS), self.get(self.nars.stat(plain.key)))
        self.script(Script(stall_at=1000))
        client = self.client(plain.key)
        self.assertEqual((SIZE, Outcome.COALESCED), self.get(self.nars.stat(plain.key)))
        self.origin.release()
        self.successResultOf(client.done)

    def test_stat_of_unknown_size(self) -> None:
        """An upstream's word for a size does not count: no bytes follow to find it out."""
        bare = sample("bare", SIZE).altered(file_size=None)
        self.origin.add(bare)
        self.learn(bare)
        self.assertEqual((None, Outcome.MISS), self.get(self.nars.stat(bare.key)))


class AdmissionTests(NarsCase):
    def second(self) -> NarKey:
        """Another NAR that could be fetched."""
        other = sample("other", SIZE)
        self.origin.add(other)
        self.learn(other)
        return other.key

    def test_one_download_too_many_is_turned_away(self) -> None:
        """Clients of another NAR come back later; those of one that arrives are served."""
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
        self.assertEqual(["cache-download-max-count"], self.reached)

    def test_download_waits_for_spools_to_be_published(self) -> None:
        """What has no place yet asks no upstream, and goes on when there is one."""
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
        self.assertEqual(["published", "published"], self.ended)

    def test_download_waits_in_vain_for_so_long(self) -> None:
        """Its clients are told to come back; what it waited for goes on."""
        self.most_spooled = SIZE
        self.restart()
        other = self.second()
        self.script(Script(stall_at=100_000))
        first = self.client(self.key)
        waiting = self.open(other)
        self.clock.advance(PATIENCE_S)
        self.failureResultOf(waiting, Busy)
        self.assertEqual(["cache-download-max-spool-size"], self.reached)
        self.origin.release()
        self.successResultOf(first.done)
        self.assertStored()
        self.download(other)

    def test_short_of_space_streams_through(self) -> None:
        """With less free than the reserve clients get every byte, and nothing is kept."""
        self.free = len(self.sample.file) + 999
        client = self.begun(self.key, script=Script(hold=True))
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file, client.data)
        self.assertNotStored()
        self.assertEqual((["unkept"], []), (self.ended, self.files))
        self.assertEqual(["cache-storage-min-free"], self.reached)
        self.free += 1
        self.download(self.key)
        self.assertStored()

    def test_nar_larger_than_the_store_is_fetched_once_while_it_flows(self) -> None:
        """It is not kept, but who comes while it arrives gets it from the beginning."""
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
        self.assertEqual(([0], ["unkept"]), (self.asked(), self.ended))
        self.assertEqual(["cache-max-size"], self.reached)

    def test_upstreams_busy_by_us_are_told_as_such(self) -> None:
        """Waiting in vain for a place at an upstream harms its health in no way."""
        self.script(Script(error=Busy("waited")), Script(error=Busy("waited")))
        opening = self.open(self.key)
        self.clock.pump([1, 1, 1])
        self.failureResultOf(opening, Unavailable)
        self.assertTrue(all(c.health.is_healthy for c in self.upstreams.candidates))
        self.download(self.key)


class FenceTests(NarsCase):
    """Rows that were stored under a lease of later than now, since some clock was wrong."""

    def setUp(self) -> None:
        super().setUp()
        self.download(self.key)
        self.get(self.catalog.mark_stored(self.record(), 10**18))

    def test_what_was_fetched_is_taken_over_at_once(self) -> None:
        """Where no successor has stored it, bytes do not stay without a row until somebody asks."""
        self.get(self.catalog.mark_missing(self.key))
        self.store.objects.clear()
        self.narinfos.changed(self.key)
        self.download(self.key)
        self.assertStored()
        self.assertEqual([], self.get_orphans())
        self.origin.is_away = True
        hit, again = self.successResultOf(self.open(self.key))
        self.successResultOf(again.done)
        self.assertEqual((Outcome.HIT, self.sample.file), (hit.outcome, again.data))

    def get_orphans(self) -> list[NarKey]:
        stored = {key for key, record in self.catalog.records.items() if record.is_stored}
        return [key for key in self.store.objects if key not in stored]


class FullDiskTests(NarsCase):
    def test_no_room_for_a_file_streams_through(self) -> None:
        """A full disk does not keep clients from their bytes; nothing is marked as stored."""
        self.is_full = True
        client = self.begun(self.key, script=Script(hold=True))
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file, client.data)
        self.assertNotStored()
        self.assertEqual(["unkept"], self.ended)

    def test_disk_that_fills_up_on_the_way(self) -> None:
        """The same when the room ends in mid-file."""
        self.patch(os, "pwrite", full_after(100_000))
        client = self.begun(self.key, script=Script(hold=True))
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file, client.data)
        self.assertNotStored()

    def test_store_full_on_publish(self) -> None:
        """If only the publication fails, clients are done already and nothing is marked."""
        for trouble in (StorageFull("quota"), Unavailable("EIO")):
            self.store.failing = None
            self.script(Script(stall_at=100_000))
            client = self.client(self.key)
            self.store.failing = trouble
            self.origin.release()
            self.successResultOf(client.done)
            self.assertEqual(self.sample.file, client.data)
            self.assertEqual("unkept", self.ended[-1])
            self.assertNotStored()

    def test_catalog_that_fails_after_publication(self) -> None:
        """Bytes without a row are no harm: the next request takes them over."""
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
        """Who comes when bytes have passed without being kept starts a fetch of his own."""
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

    def test_nobody_left_on_a_full_disk_ends_the_download(self) -> None:
        """What nobody reads and nothing keeps is not fetched to its end."""
        big = sample("big", 3 * WINDOW_HIGH, "none")
        self.origin.add(big)
        self.learn(big)
        self.is_full = True
        self.script(Script(stall_at=100_000))
        self.client(big.key).leave()
        self.origin.release()
        self.assertEqual(["failed"], self.ended)

    def test_threads_that_stop_end_the_download(self) -> None:
        """Trouble of our own is not tried at every upstream for a minute."""
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


class HealingTests(NarsCase):
    def setUp(self) -> None:
        super().setUp()
        self.download(self.key)
        self.origin.log.clear()
        self.ended.clear()

    def test_missing_bytes_are_fetched_again(self) -> None:
        """A file that was deleted under us is fetched again before any header is sent."""
        self.store.objects.clear()
        _, client = self.successResultOf(self.open(self.key, 5, 500))
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file[5:500], client.data)
        self.assertEqual([0], self.asked())
        self.assertStored()

    def test_bytes_of_wrong_size_are_set_aside_and_fetched_again(self) -> None:
        """A truncated file is quarantined and replaced."""
        self.store.objects[self.key] = b"truncated"
        self.assertEqual(self.sample.file, self.download(self.key))
        self.assertEqual([(self.key, b"truncated")], self.store.quarantined)
        self.assertStored()

    def test_nobody_can_replace_them(self) -> None:
        """If it cannot be fetched again, the client is told so with a status."""
        self.store.objects.clear()
        self.origin.is_away = True
        opening = self.open(self.key)
        self.clock.advance(1)
        self.failureResultOf(opening, Unavailable)
        self.assertFalse(self.record().is_stored)

    def test_many_clients_heal_once(self) -> None:
        """Everybody who finds the bytes missing shares one new fetch."""
        self.store.objects.clear()
        self.script(Script(hold=True))
        opening = [self.open(self.key) for _ in range(3)]
        self.origin.release()
        for one in opening:
            _, client = self.successResultOf(one)
            self.successResultOf(client.done)
            self.assertEqual(self.sample.file, client.data)
        self.assertEqual([0], self.asked())

    def test_healed_by_somebody_else_meanwhile(self) -> None:
        """Who has an old record in hand does not undo a healing."""
        nar = self.get(self.nars.open(self.key))
        self.store.objects.clear()
        self.clock.advance(5)
        self.download(self.key)
        healed_at = self.record().stored_at
        opened, troubles = self.store.open, [NotFound("not there yet")]

        async def open_(*args: Any, **options: Any) -> Body:
            if troubles:
                raise troubles.pop()
            return await opened(*args, **options)

        self.patch(self.store, "open", open_)
        client = Client(self.get(nar.body(0, 10)))
        self.assertEqual(self.sample.file[:10], client.data)
        self.assertEqual((healed_at, [0]), (self.record().stored_at, self.asked()))

    def test_quarantine_that_fails_does_not_stop_the_healing(self) -> None:
        """On a read-only store damaged bytes stay, but clients get right ones."""
        self.store.objects[self.key] = b"truncated"

        async def quarantine(_: NarKey) -> bool:
            raise StorageFull("read-only")

        self.patch(self.store, "quarantine", quarantine)
        self.assertEqual(self.sample.file, self.download(self.key))

    def test_store_that_cannot_tell_heals_nothing(self) -> None:
        """A store that does not answer has not lost anything."""
        self.store.failing = Unavailable("EIO")
        self.failureResultOf(self.open(self.key), Unavailable)
        self.assertTrue(self.record().is_stored)
        self.assertEqual([], self.asked())

    def test_head_heals_too(self) -> None:
        """HEAD promises only what GET can keep."""
        self.store.objects.clear()
        self.assertEqual(Outcome.HIT, self.get(self.nars.stat(self.key))[1])
        self.assertStored()

    def test_bytes_that_cannot_be_read_are_set_aside_and_fetched_again(self) -> None:
        """What is found while it is read heals, too, once for all who find it."""
        opened = [self.get(self.nars.open(self.key)) for _ in range(2)]
        for nar in opened:
            self.assertTrue(self.get(nar.spoiled(Corrupt("Input/output error"))))
            self.assertFalse(self.record().is_stored)
        self.assertEqual([(self.key, self.sample.file)], self.store.quarantined)
        self.clock.advance(5)
        self.assertEqual(self.sample.file, self.download(self.key))
        self.assertStored()
        self.assertTrue(self.get(opened[0].spoiled(Corrupt("Input/output error"))))
        self.assertEqual(1, len(self.store.quarantined), "what was fetched since is another file")
        self.assertStored()

    def test_healing_outlives_the_client_that_found_it(self) -> None:
        """Who is cut off by a bad disk need not wait until that is noted."""
        nar = self.get(self.nars.open(self.key))
        gate: Deferred[bool] = Deferred()
        quarantine = self.store.quarantine

        async def slowly(key: NarKey) -> bool:
            await gate
            return await quarantine(key)

        self.patch(self.store, "quarantine", slowly)
        telling = self.start(nar.spoiled(Corrupt("Input/output error")))
        telling.addErrback(lambda _: None)
        telling.cancel()
        gate.callback(True)
        self.assertFalse(self.record().is_stored)

    def test_last_use_is_noted(self) -> None:
        """When a NAR was last asked for is written down in time."""
        self.clock.advance(500)
        self.download(self.key)
        self.get(self.uses.flush())
        used = self.record().last_used_at
        assert used is not None
        self.assertEqual(self.clock.seconds(), used.timestamp())


class ManyTests(NarsCase):
    def test_ten_thousand_chunks_at_once(self) -> None:
        """However much is there at once, the stack stays flat."""
        self.script(Script(chunk=30))
        self.assertEqual(self.sample.file, self.download(self.key))

    def test_two_hundred_clients(self) -> None:
        """Two hundred clients of one NAR are one fetch and one file."""
        self.script(Script(stall_at=100_000))
        clients = [self.client(self.key, n, 200_000 + n) for n in range(200)]
        self.origin.release()
        for n, client in enumerate(clients):
            self.successResultOf(client.done)
            self.assertEqual(self.sample.file[n : 200_000 + n], client.data)
        self.assertEqual((1, 1), (len(self.asked()), len(self.files)))
