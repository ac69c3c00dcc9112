"""NARs: one fetch for all clients; NARs that are not here, or that no upstream has."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.logger import LogLevel, capturedLogs

from ncps.aio.spool_reader import HOLD_BACK
from ncps.cache.answers import Absent, Outcome
from ncps.cache.cluster import lease_of
from ncps.errors import NotFound, StorageFull, Unavailable
from ncps.nix.hashes import sha256_of
from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import NarKey
from tests.fakes.catalog import MemoryCatalog
from tests.fakes.client import Client
from tests.fakes.metrics import series
from tests.fakes.samples import sample
from tests.fakes.upstream import Script
from tests.unit.cache.nar.rig import SIZE, NarsCase


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
        """The NAR's narinfo is put into the store with it, as the upstream sent it."""
        self.download(self.key)
        text = self.sidecars.texts[self.sample.digest]
        self.assertIn(b"NcpsUpstream: http://a.example.org\n", text)
        self.assertTrue(text.startswith(self.sample.narinfo.render()))

    def test_zstd_is_verified_while_it_arrives(self) -> None:
        """If that is cheap, NarHash is checked before anything is published."""
        self.sample = sample("z", SIZE, "zstd")
        self.origin.add(self.sample)
        self.key = self.sample.key
        self.learn(self.sample)
        self.download(self.key)
        self.assertStored()
        self.assertIsNotNone(self.record().verified_at)
        self.assertEqual(0, series(self.metrics.short_ways).get("check", 0))

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

    def test_all_clients_leave_and_it_is_stored_nevertheless(self) -> None:
        """A download continues when no client waits for it."""
        self.script(Script(stall_at=100_000))
        clients = [self.client(self.key) for _ in range(2)]
        for client in clients:
            client.leave()
        self.origin.release()
        self.assertStored()

    def test_slow_client_outlives_the_download(self) -> None:
        """A slow client gets all bytes, long after the file was renamed into the store."""
        _, client = self.successResultOf(self.open(self.key, hold=True))
        self.assertStored()
        while not client.done.called:
            client.go()
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file, client.data)

    def test_last_bytes_wait_for_the_verdict(self) -> None:
        """No client gets the whole file before its hash was found right."""
        self.script(Script(stall_at=len(self.sample.file)))
        client = self.client(self.key)
        self.assertEqual(len(self.sample.file) - HOLD_BACK, len(client.data))
        self.origin.release()
        self.successResultOf(client.done)

    def test_uncompressed_may_be_compressed_on_the_wire(self) -> None:
        """A Content-Encoding is accepted only for a NAR without compression."""
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
        """A client that needs the size, for a range, waits until it is known."""
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
        """A client that opens the body late gets it, although the download has ended."""
        self.script(Script(stall_at=100_000))
        opening = self.start(self.nars.open(self.key))
        nar = self.successResultOf(opening)
        self.origin.release()
        self.assertStored()
        client = Client(self.get(nar.body(5, 10)))
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file[5:10], client.data)

    def test_stored_by_a_peer_while_waiting_for_the_lease(self) -> None:
        """If another replica was faster, its NAR is served and nothing is fetched."""
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
        self.assertEqual({"failed": 1}, self.ended)

    def test_stop_cuts_what_is_under_way(self) -> None:
        """At shutdown clients are cut off, and nothing partial is stored."""
        self.script(Script(stall_at=100_000))
        client = self.client(self.key)
        stopping = self.start(self.tasks.stop(5))
        self.clock.advance(5)
        self.successResultOf(stopping)
        self.failureResultOf(client.done, Unavailable)
        self.assertNotStored()
        self.assertEqual({"cancelled": 1}, self.ended)

    def test_stop_while_waiting_for_the_head(self) -> None:
        """Clients without a byte get an error that says to try later."""
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


class UnknownTests(NarsCase):
    """NARs whose narinfo is not known."""

    def setUp(self) -> None:
        super().setUp()
        self.catalog = MemoryCatalog()
        self.restart()
        self.key = self.sample.conventional

    def test_name_is_taken_for_the_hash(self) -> None:
        """A NAR without a known narinfo is fetched by its conventional URL and verified."""
        self.assertEqual(self.sample.file, self.download(self.key))
        self.assertStored()
        self.assertEqual([self.key.url], [url for url, _ in self.origin.asked("nar")])

    def test_absent_is_remembered(self) -> None:
        """An absence is remembered for a while, and after that an upstream is asked again."""
        self.origin.nars.clear()
        with capturedLogs() as lines:
            self.failureResultOf(self.open(self.key), NotFound)
        (warning,) = [line for line in lines if line["log_level"] > LogLevel.info]
        self.assertIn("no upstream has", warning["reason"])
        error = self.failureResultOf(self.open(self.key), Absent).value
        self.assertIs(Outcome.NEGATIVE, error.outcome)
        self.assertEqual([0], self.asked())
        self.clock.advance(30)
        self.failureResultOf(self.open(self.key), NotFound)
        self.assertEqual([0, 0], self.asked())

    def test_narinfo_ends_the_absence(self) -> None:
        """A narinfo that names the NAR shows that an upstream has it nevertheless."""
        file = self.origin.nars.pop(self.sample.url)
        self.failureResultOf(self.open(self.key), NotFound)
        self.origin.nars[self.sample.url] = file
        self.learn(self.sample)
        self.assertEqual(self.sample.file, self.download(self.key))

    def test_unsure_answer_is_not_remembered(self) -> None:
        """A failing upstream is no absence."""
        self.origin.is_away = True
        opening = self.open(self.key)
        self.clock.advance(1)
        self.failureResultOf(opening, Unavailable)
        self.origin.is_away = False
        self.assertEqual(self.sample.file, self.download(self.key))

    def test_name_that_is_no_hash(self) -> None:
        """A name that is no SHA-256 belongs to no NAR, so no upstream is asked."""
        self.failureResultOf(self.open(NarKey("z" * 52, "xz")), NotFound)
        self.assertEqual([], self.asked())

    def test_narinfo_only_in_memory_is_as_good(self) -> None:
        """If the narinfo could not be recorded, its NAR is fetched nevertheless."""
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
        """If no upstream has a narinfo's NAR: 404, and the narinfo is no longer a hit."""
        self.origin.nars.clear()
        self.failureResultOf(self.open(self.key), NotFound)
        self.assertEqual({}, self.catalog.entries)
        self.assertIsNone(self.memory.get(self.sample.digest))
        self.learn(self.sample)
        self.assertEqual(3, len(self.origin.asked("narinfo")))  # once after its narinfo

    def test_upstream_that_has_forgotten_its_nar_is_reminded(self) -> None:
        """Another ncps knows NARs by their narinfos: it is asked once more after a narinfo."""
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

        It tells a size that is signed or was computed: no bytes follow that could refute another.
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

    def test_stat_of_a_nar_that_no_upstream_has(self) -> None:
        """HEAD gets 404 or 503 by the same rules, after all upstreams were asked."""
        self.origin.nars.clear()
        self.refused(self.nars.stat(self.key), NotFound)
        self.mirror.add(self.sample)
        self.assertEqual(Outcome.MISS, self.get(self.nars.stat(self.key))[1])
        self.mirror.is_away = True
        self.refused(self.nars.stat(self.key), Unavailable)

    def test_stat_of_a_size_that_is_signed(self) -> None:
        """An uncompressed NAR has the size NarSize, before and while its bytes arrive."""
        plain = sample("plain", SIZE, "none")
        self.origin.add(plain)
        self.learn(plain)
        self.assertEqual((SIZE, Outcome.MISS), self.get(self.nars.stat(plain.key)))
        self.script(Script(stall_at=1000))
        client = self.client(plain.key)
        self.assertEqual((SIZE, Outcome.COALESCED), self.get(self.nars.stat(plain.key)))
        self.origin.release()
        self.successResultOf(client.done)

    def test_head_repeats_no_false_length(self) -> None:
        """The size of an uncompressed NAR is its NarSize, whatever length an upstream announces."""
        plain = sample("plain", SIZE, "none")
        self.origin.add(plain)
        self.learn(plain)
        self.origin.scripts.append(Script(total=SIZE + 3000, stall_at=1000))
        nar = self.get(self.nars.open(plain.key))
        self.assertEqual((SIZE, Outcome.COALESCED), self.get(self.nars.stat(plain.key)))
        self.assertEqual(SIZE, self.get(nar.final_size()))
        nar.close()

    def test_stat_of_unknown_size(self) -> None:
        """A size that an upstream says does not count, because no bytes follow to check it."""
        bare = sample("bare", SIZE).altered(file_size=None)
        self.origin.add(bare)
        self.learn(bare)
        self.assertEqual((None, Outcome.MISS), self.get(self.nars.stat(bare.key)))


class ManyTests(NarsCase):
    def test_ten_thousand_chunks_at_once(self) -> None:
        """The stack stays flat, even if ten thousand chunks are there at the same time."""
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
