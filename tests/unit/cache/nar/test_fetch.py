"""The job of a download: after a cut or wrong bytes a NAR comes from the next source."""

from __future__ import annotations

from attrs import evolve

from ncps.aio.spool_reader import HOLD_BACK
from ncps.cache.answers import WrongBytesSent
from ncps.cache.nar.fetch import MAX_RESTARTS
from ncps.codec import encoder
from ncps.errors import Corrupt, NotFound, Unavailable
from ncps.nix.hashes import sha256_of
from ncps.nix.judge import Look
from ncps.nix.narurl import NarKey
from tests.fakes.catalog import MemoryCatalog
from tests.fakes.metrics import series
from tests.fakes.samples import sample
from tests.fakes.threads import HeldThreads
from tests.fakes.upstream import HONEST, Script
from tests.unit.cache.nar.rig import SIZE, NarsCase
from tests.unit.cache.rig import PATIENCE_S


class ResumeTests(NarsCase):
    def test_cut_goes_on_at_the_same_upstream(self) -> None:
        """A broken connection is continued from the byte that is here; clients notice nothing."""
        self.script(Script(cut_at=100_000), Script(cut_at=200_000))
        self.assertEqual(self.sample.file, self.download(self.key))
        self.assertEqual([0, 100_000, 200_000], self.asked())
        self.assertStored()

    def test_cut_after_the_last_byte_is_no_matter(self) -> None:
        """All bytes are here; only the end of the connection was not clean."""
        self.script(Script(cut_at=len(self.sample.file)))
        self.assertEqual(self.sample.file, self.download(self.key))
        self.assertEqual([0], self.asked())

    def test_every_byte_is_a_good_place_to_cut(self) -> None:
        """The bytes are right wherever the connection breaks."""
        for at in (0, 1, 65_535, 65_536, HOLD_BACK, len(self.sample.file) - 1):
            self.setUp()
            self.script(Script(cut_at=at))
            client = self.client(self.key)
            self.clock.pump([0.5] * 4)
            self.successResultOf(client.done)
            self.assertEqual(self.sample.file, client.data)
            self.assertStored()

    def test_stall_goes_on_at_the_same_upstream_then_at_the_next(self) -> None:
        """A stalled body is given up after its idle time, and continued elsewhere."""
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
        """If an upstream always sends from the start, the bytes that are here are skipped."""
        self.script(Script(cut_at=100_001), Script(ignores_range=True, chunk=999))
        self.assertEqual(self.sample.file, self.download(self.key))
        self.assertStored()

    def test_clean_early_end_is_continued(self) -> None:
        """A body that ends too early without an error is continued like a broken one."""
        self.script(Script(end_at=100_000))
        self.assertEqual(self.sample.file, self.download(self.key))
        self.assertEqual([0, 100_000], self.asked())

    def test_shorter_file_is_another_file(self) -> None:
        """An upstream whose file is too short is not asked repeatedly."""
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
        """If no upstream has the right file, it is an error, and the narinfo is fetched anew."""
        self.origin.otherwise = Script(total=7)
        self.failureResultOf(self.open(self.key), Corrupt)
        self.assertEqual({}, self.catalog.entries)
        self.assertNotStored()

    def test_pause_in_the_middle_is_waited_out(self) -> None:
        """The only upstream goes away in mid-file and comes back: clients only see a pause."""
        self.origin.otherwise = Script(error=Unavailable("refused"))
        client = self.begun(self.key, script=Script(hold=True, cut_at=100_000))
        self.clock.pump([1.0] * int(PATIENCE_S - 15))
        self.assertNoResult(client.done)
        self.origin.otherwise = HONEST
        self.clock.pump([1.0] * 13)
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file, client.data)

    def test_patience_ends(self) -> None:
        """If no byte comes within the set time, clients are cut off, and a new request may try."""
        self.script(Script(cut_at=100_000))
        self.origin.is_away = False
        self.origin.otherwise = Script(error=Unavailable("refused"))
        client = self.client(self.key)
        self.clock.pump([1.0] * int(PATIENCE_S + 5))
        self.failureResultOf(client.done, Unavailable)
        self.assertEqual({"failed": 1}, self.ended)
        self.assertNotStored()
        self.origin.otherwise = HONEST
        self.clock.advance(60)
        self.assertEqual(self.sample.file, self.download(self.key))

    def test_progress_renews_the_patience(self) -> None:
        """A download is not given up while bytes come from time to time."""
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
        """Before the first byte clients wait for a status: there are only two rounds."""
        self.origin.otherwise = Script(error=Unavailable("refused"))
        opening = self.open(self.key)
        self.assertNoResult(opening)
        self.clock.advance(0.3)
        self.failureResultOf(opening, Unavailable)
        self.assertEqual([0, 0], self.asked())

    def test_vanished_in_the_middle(self) -> None:
        """If an upstream deletes the file during the download, it is not waited for."""
        self.script(*[Script(error=NotFound("404"))] * 2)  # the second after its narinfo
        client = self.begun(self.key, script=Script(hold=True, cut_at=100_000))
        self.failureResultOf(client.done, NotFound)
        self.assertNotStored()

    def test_mirror_is_asked_for_the_very_same_file_only(self) -> None:
        """A mirror with another compression of the NAR cannot help in mid-file."""
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
        """If only NarHash is known, another file will do, from its first byte on."""
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
        """If our own database fails, no upstream counts as failing."""
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


class LaterTests(NarsCase):
    """NarHash of xz is checked in the background."""

    inner_look = Look.IF_CHEAP

    def test_nar_that_was_stored_before_its_check_is_counted(self) -> None:
        self.download(self.key)
        self.assertIsNone(self.catalog.records[self.key].verified_at)
        self.assertEqual(1, series(self.metrics.short_ways)["check"])


class WrongBytesTests(NarsCase):
    inner_look = Look.IF_CHEAP

    def test_wrong_hash_of_the_only_source(self) -> None:
        """Wrong bytes are never complete at a client and never stored; the next request is new."""
        client = self.begun(self.key, script=Script(hold=True, lie_at=10))
        self.failureResultOf(client.done, Corrupt)
        self.assertLess(len(client.data), len(self.sample.file))
        self.assertNotStored()
        self.assertEqual({}, self.catalog.entries)
        self.learn(self.sample)
        self.assertEqual(self.sample.file, self.download(self.key))

    def test_wrong_bytes_that_were_sent_are_said_to_be_wrong(self) -> None:
        """A client that was cut off after wrong bytes gets an error of its own kind."""
        client = self.begun(self.key, script=Script(hold=True, lie_at=10))
        self.failureResultOf(client.done, WrongBytesSent)

    def test_wrong_hash_of_an_unknown_nar_is_tried_again(self) -> None:
        """Wrong bytes are no absence: also without a narinfo, the next request tries again."""
        self.catalog = MemoryCatalog()
        self.restart()
        self.key = self.sample.conventional
        client = self.begun(self.key, script=Script(hold=True, lie_at=10))
        self.failureResultOf(client.done, Corrupt)
        self.assertEqual(self.sample.file, self.download(self.key))

    def test_wrong_hash_with_two_sources(self) -> None:
        """Clients without a byte get the right file from the other source; others are cut off."""
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
        self.assertStored(published=1)

    def test_lying_source_is_not_asked_again(self) -> None:
        """A download does not ask a source again if that alone has sent wrong bytes."""
        self.both()
        self.mirror.scripts.extend([Script(cut_at=0), Script(cut_at=0)])
        self.origin.otherwise = Script(lie_at=10)
        client = self.client(self.key, len(self.sample.file) - 5)
        self.clock.pump([0.5] * 10)
        self.successResultOf(client.done)
        self.assertEqual([0], self.asked())

    def test_mixed_false_facts_are_separated(self) -> None:
        """If two sources sent the wrong bytes together, each is tried alone."""
        self.both()
        size = len(self.sample.file)
        self.script(Script(error=Unavailable("x")))
        first = Script(hold=True, lie_at=10, cut_at=100_000)
        client = self.begun(self.key, size - 5, script=first)
        self.clock.pump([0.5] * 10)
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file[-5:], client.data)
        self.assertStored()

    def test_endless_wrong_answers_end(self) -> None:
        """Sources that send wrong bytes in turns are given up after some restarts."""
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
        """A body that is longer than its size is wrong, even if all earlier bytes were right."""
        self.both()
        self.script(Script(total=0, extra=b"more"))
        client = self.client(self.key, 5, 50)
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file[5:50], client.data)
        self.assertStored()

    def test_body_whose_decoding_fails(self) -> None:
        """A source with a broken Content-Encoding is left for the next, from the last good byte."""
        self.both()
        self.script(Script(cut_at=None, end_at=100_000, failure=Corrupt("bad zstd")))
        self.assertEqual(self.sample.file, self.download(self.key))
        self.assertEqual(([0], [100_000]), (self.asked(), self.asked(self.mirror)))

    def test_digest_that_notices_early(self) -> None:
        """Bytes that cannot be decompressed are detected in mid-file, and fetched elsewhere."""
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
        """The same if the source breaks off at that moment."""
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
        """A file is refused if it has no FileHash and a compression that ncps cannot read."""
        odd = sample("odd", SIZE).altered(file_hash=None, compression="lzip")
        self.origin.add(odd)
        self.refused(self.narinfos.get(odd.digest), NotFound)
        self.vetting = evolve(self.vetting, trusted=())
        self.restart()
        self.learn(odd)
        self.failureResultOf(self.open(odd.key), Corrupt)
