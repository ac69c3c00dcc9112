"""URL, FileHash and FileSize are not signed: if they are false, the NAR inside decides."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from ncps.aio.spool_reader import HOLD_BACK
from ncps.cache.answers import Outcome, Resized
from ncps.errors import Corrupt, NotFound, Unavailable
from ncps.nix.hashes import sha256_of
from ncps.nix.judge import Look
from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import NarKey
from tests.fakes.client import Client
from tests.fakes.samples import sample
from tests.fakes.upstream import Script
from tests.unit.cache.rig import CoreCase

FALSE_HASH = sha256_of(b"false")
SIZE = 300_000


class FalseFactsCase(CoreCase):
    """The origin is asked first, and its narinfo is false; most of its files are right."""

    def setUp(self) -> None:
        super().setUp()
        self.sample = sample(size=SIZE)
        self.mirror.add(self.sample)

    def lie(self, **changes: Any) -> NarKey:
        """Let the origin say something false about the file; return the key of the file here."""
        self.origin.add(self.sample)
        self.origin.add(evolve(self.sample.altered(**changes), file=self.sample.file))
        return self.learned()

    def learned(self) -> NarKey:
        text = self.get(self.narinfos.get(self.sample.digest)).text
        return NarKey.parse(NarInfo.parse(text).url.rpartition("/")[2])

    def told(self) -> NarInfo:
        return NarInfo.parse(self.get(self.narinfos.get(self.sample.digest)).text)

    def assertCorrected(self) -> None:
        """Check that the narinfo says the truth about the file from now on."""
        told = self.told()
        self.assertEqual(
            (sha256_of(self.sample.file), len(self.sample.file)), (told.file_hash, told.file_size)
        )
        [record] = [nar for nar in self.catalog.records.values() if nar.is_stored]
        self.assertEqual(sha256_of(self.sample.file), record.file_hash)


class FileHashTests(FalseFactsCase):
    def test_right_nar_overrules_a_false_file_hash(self) -> None:
        """No client notices, in any compression; the narinfo is right from then on."""
        for compression in ("xz", "zstd", "bzip2", "br", "lz4", "gzip"):
            self.setUp()
            self.sample = sample(compression, SIZE, compression)
            key = self.lie(file_hash=FALSE_HASH)
            self.assertEqual(self.sample.file, self.download(key), compression)
            self.assertCorrected()
            self.assertIsNotNone(self.catalog.records[key].verified_at)
            self.assertEqual([], self.mirror.asked("nar"))

    def test_wrong_nar_is_wrong_nevertheless(self) -> None:
        """No client gets a complete file that agrees with neither FileHash nor NarHash."""
        key = self.lie(file_hash=FALSE_HASH)
        self.mirror.nars.clear()
        self.origin.otherwise = Script(lie_at=1000)
        self.failureResultOf(self.open(key), Corrupt)
        self.assertEqual({}, self.store.objects)

    def test_bytes_without_a_row_are_adopted_nevertheless(self) -> None:
        """Bytes that a crash left are judged by their NAR, like arriving ones."""
        key = self.lie(file_hash=FALSE_HASH)
        self.store.put(key, self.sample.file)
        self.assertEqual(self.sample.file, self.download(key))
        self.assertEqual([], self.origin.asked("nar"))
        self.assertCorrected()

    def test_file_that_cannot_be_kept_is_not_looked_into(self) -> None:
        """If the bytes were not kept, NarHash cannot overrule a false FileHash later."""
        self.inner_look = Look.IF_CHEAP
        self.restart()
        self.is_full = True
        key = self.lie(file_hash=FALSE_HASH)
        self.origin.scripts.append(Script(stall_at=1000))
        client = self.client(key)
        self.origin.release()
        self.failureResultOf(client.done, Corrupt)

    def test_right_upstream_continues_for_the_wrong_one(self) -> None:
        """Another upstream has the same file by the hash in its URL: it sends the rest."""
        key = self.lie(file_hash=FALSE_HASH)
        self.origin.scripts.extend(
            [Script(cut_at=100_000), Script(error=Unavailable("away")), Script(stall_at=0)]
        )
        self.assertEqual(self.sample.file, self.download(key))
        self.assertEqual([100_000], [offset for _, offset in self.mirror.asked("nar")])
        self.assertCorrected()


class UrlTests(FalseFactsCase):
    def test_url_that_leads_nowhere(self) -> None:
        """The file comes from an upstream that has its FileHash."""
        key = self.lie(url=f"nar/{FALSE_HASH.nix32}.nar.xz")
        self.assertEqual(NarKey(self.sample.narinfo.nar_hash.nix32, "xz"), key)
        self.origin.nars.clear()
        self.assertEqual(self.sample.file, self.download(key))
        self.assertCorrected()

    def test_narinfo_of_a_file_that_is_nowhere(self) -> None:
        """If a whole narinfo is false, another upstream sends the NAR in another file."""
        key = self.lie(url=f"nar/{FALSE_HASH.nix32}.nar.xz", file_hash=FALSE_HASH, file_size=7)
        self.origin.nars.clear()
        self.assertEqual(self.sample.file, self.download(key))
        self.assertCorrected()

    def test_other_file_is_an_answer_only_after_the_first_failed_twice(self) -> None:
        """An upstream that fails keeps no client from a NAR that another upstream has."""
        key = self.lie(url=f"nar/{FALSE_HASH.nix32}.nar.xz", file_hash=FALSE_HASH)
        self.origin.otherwise = Script(error=Unavailable("status 500"))
        opening = self.open(key)
        self.assertEqual([], self.mirror.asked("nar"))
        self.clock.pump([0.2] * 2)
        _, client = self.successResultOf(opening)
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file, client.data)

    def test_url_that_no_narinfo_names_any_more(self) -> None:
        """A client with an old narinfo gets its NAR, although there is a new narinfo."""
        key = self.lie(url=f"nar/{FALSE_HASH.nix32}.nar.xz", file_hash=FALSE_HASH)
        self.origin.nars.clear()
        for _ in range(3):
            self.upstreams.candidates[0].health.failed("refused")
        self.assertNotEqual(key, self.learned())
        self.assertEqual([], self.get(self.catalog.narinfos_of(key)))
        self.upstreams.candidates[0].health.answered()
        self.assertEqual(self.sample.file, self.download(key))

    def test_url_that_no_narinfo_names_any_more_after_a_restart(self) -> None:
        """The newer narinfo is found by its NarHash."""
        key = self.lie(url=f"nar/{FALSE_HASH.nix32}.nar.xz", file_hash=FALSE_HASH)
        self.origin.nars.clear()
        for _ in range(3):
            self.upstreams.candidates[0].health.failed("refused")
        self.assertNotEqual(key, self.learned())
        self.restart()
        self.assertEqual(self.sample.file, self.download(key))

    def test_url_that_no_path_is_known_of(self) -> None:
        """Without any narinfo, other upstreams cannot be asked, so the NAR is not absent."""
        key = self.lie(url=f"nar/{FALSE_HASH.nix32}.nar.xz", file_hash=FALSE_HASH)
        self.origin.nars.clear()
        self.get(self.catalog.forget_narinfo(self.sample.digest))
        self.restart()
        opening = self.open(key)
        self.clock.pump([0.2] * 5)
        self.failureResultOf(opening, Unavailable)

    def test_same_opaque_url_is_the_same_file(self) -> None:
        """Two narinfos with one URL without a hash describe one file, even if they differ."""
        url = "https://cdn.example.org/x/uuid"
        self.sample = evolve(self.sample.altered(url=url), file=self.sample.file)
        self.mirror.add(self.sample)
        key = self.lie(file_hash=FALSE_HASH)
        self.origin.nars.clear()
        self.assertEqual(self.sample.file, self.download(key))
        self.assertCorrected()

    def test_other_file_that_is_wrong_as_well(self) -> None:
        """The file that takes its place is judged like any other."""
        key = self.lie(url=f"nar/{FALSE_HASH.nix32}.nar.xz", file_hash=FALSE_HASH)
        self.origin.nars.clear()
        self.mirror.otherwise = Script(lie_at=1000)
        self.failureResultOf(self.open(key), Corrupt, NotFound)
        self.assertEqual({}, self.store.objects)

    def test_compression_that_is_false_discredits_no_file(self) -> None:
        """The narinfos of others that name the same file truly are believed."""
        for compression in ("bzip2", "zstd", "br"):
            self.setUp()
            false = self.lie(compression=compression)
            self.failureResultOf(self.open(false), Corrupt, NotFound)
            right = self.learned()
            self.assertEqual("xz", right.extension, compression)
            self.assertEqual(self.sample.file, self.download(right), compression)

    def test_url_of_another_paths_nar(self) -> None:
        """A narinfo cannot take the name of another path's NAR, neither before nor after it."""
        victim = sample("victim", 1000)
        self.origin.add(victim)
        self.mirror.add(victim)
        facts = {"url": victim.url, "file_hash": sha256_of(victim.file), "file_size": 5}
        key = self.lie(**facts)
        self.learn(victim)
        served = NarInfo.parse(self.get(self.narinfos.get(victim.digest)).text)
        self.assertNotEqual(key.url, served.url)
        self.assertEqual(victim.file, self.download(NarKey.parse(served.url[4:])))


class FileSizeTests(FalseFactsCase):
    def sizes(self) -> tuple[int, int]:
        return len(self.sample.file) - 1000, len(self.sample.file) + 1000

    def test_answers_that_agree_overrule_a_false_size(self) -> None:
        """If no upstream has a file of that size, the NAR decides before a client gets an error."""
        for size in self.sizes():
            self.setUp()
            key = self.lie(file_size=size)
            nar, client = self.successResultOf(self.open(key))
            self.assertEqual(len(self.sample.file), nar.size)
            self.successResultOf(client.done)
            self.assertEqual(self.sample.file, client.data)
            self.assertCorrected()
            self.assertEqual((1, 0), (len(self.origin.asked("nar")), len(self.mirror.asked("nar"))))

    def test_size_that_is_found_out_at_the_end(self) -> None:
        """Without Content-Length, a client that got a false size is cut off; the next one is not.

        A size that was too large, also by more than readers hold back, is found out by the same
        bytes, one that was too small by others.
        """
        for size in (*self.sizes(), len(self.sample.file) + 2 * HOLD_BACK):
            self.setUp()
            key = self.lie(file_size=size)
            self.origin.otherwise = self.mirror.otherwise = Script(total=0)
            self.origin.scripts.append(Script(total=0, hold=True))
            opening = self.open(key)
            self.origin.release()
            _, client = self.successResultOf(opening)
            self.failureResultOf(client.done, Corrupt)
            # It has bytes to come back for: a client that asks for none gets 416.
            self.assertLess(len(client.data), len(self.sample.file))
            self.assertEqual(self.sample.file, self.download(key))
            self.assertCorrected()

    def test_wrong_length_of_one_answer_is_no_dispute(self) -> None:
        """If another answer agrees with the narinfo, the first answer was wrong."""
        self.origin.add(self.sample)
        key = self.learned()
        self.origin.scripts.append(Script(total=7))
        self.assertEqual(self.sample.file, self.download(key))
        self.assertEqual(1, len(self.mirror.asked("nar")))

    def test_head_does_not_repeat_it(self) -> None:
        """HEAD says a size only if the narinfo and an upstream agree."""
        key = self.lie(file_size=self.sizes()[0])
        self.assertEqual((None, Outcome.MISS), self.get(self.nars.stat(key)))
        self.download(key)
        size = len(self.sample.file)
        self.assertEqual((size, Outcome.HIT), self.get(self.nars.stat(key)))

    def test_it_is_not_final(self) -> None:
        """A size that a narinfo says, and no answer has confirmed, may still change."""
        self.origin.otherwise = self.mirror.otherwise = Script(total=0)
        self.origin.scripts.append(Script(total=0, stall_at=100_000))
        size, _ = self.sizes()
        opening = self.start(self.nars.open(self.lie(file_size=size)))
        nar = self.successResultOf(opening)
        self.assertEqual(size, nar.size)
        sizing = self.start(nar.final_size())
        self.assertNoResult(sizing)
        self.origin.release()
        self.assertEqual(len(self.sample.file), self.successResultOf(sizing))

    def test_range_is_not_resolved_against_it(self) -> None:
        """A range up to the end is a range of the true file."""
        key = self.lie(file_size=self.sizes()[0])
        nar = self.get(self.nars.open(key))
        size = self.get(nar.known_size())
        client = Client(self.get(nar.body(size - HOLD_BACK - 5, size)))
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file[-HOLD_BACK - 5 :], client.data)


class LengthTests(CoreCase):
    """If no narinfo says a size, the first Content-Length may still be wrong."""

    priorities = (10, 20, 30)

    def setUp(self) -> None:
        super().setUp()
        self.sample = sample(size=SIZE)
        bare = self.sample.altered(file_hash=None, file_size=None)
        for upstream in self.scripted:
            upstream.add(bare)
        self.learn(bare)
        self.key = bare.key

    def cut_short(self, origin: Script) -> Client:
        """Return the body of a NAR that the origin breaks off and the others can finish."""
        self.origin.scripts.append(origin)
        opening = self.open(self.key)
        self.clock.pump([1.0] * 5)
        _, client = self.successResultOf(opening)
        return client

    def test_false_length_that_two_others_contradict(self) -> None:
        """The bytes are right, wherever the false answer broke off."""
        size = len(self.sample.file)
        for cut_at in (size, size // 2):
            self.setUp()
            client = self.cut_short(Script(total=size + 2000, cut_at=cut_at))
            self.successResultOf(client.done)
            self.assertEqual(self.sample.file, client.data)
            self.assertEqual(self.sample.file, self.download(self.key))

    def test_answer_that_gave_no_byte_has_said_no_size(self) -> None:
        """After a web page, or an answer that is cut immediately, the next upstream is enough."""
        page = Corrupt("a web page instead of a NAR")
        others = (Script(), Script(total=0))  # one of these answers does not say its size
        for empty in (Script(total=41, end_at=0, failure=page), Script(total=41, cut_at=0)):
            for other in others:
                self.setUp()
                self.mirror.otherwise = other
                client = self.cut_short(empty)
                self.successResultOf(client.done)
                self.assertEqual(self.sample.file, client.data)
                self.assertEqual([1, 1, 0], [len(u.asked("nar")) for u in self.scripted])

    def test_a_client_that_waits_for_such_an_answer_gets_an_error_for_its_size(self) -> None:
        """A client without a byte gets the error immediately, and the download can restart."""
        page = Corrupt("a web page instead of a NAR")
        self.origin.scripts.append(Script(total=41, end_at=0, stall_at=0, failure=page))
        nar, client = self.successResultOf(self.open(self.key))
        self.assertEqual(41, nar.size)
        self.origin.release()
        self.failureResultOf(client.done, Resized)
        self.assertEqual(self.sample.file, self.download(self.key))

    def test_one_upstream_is_enough_beside_web_pages(self) -> None:
        """Web pages of several sizes do not outvote an upstream."""
        page = Corrupt("a web page instead of a NAR")
        for number, upstream in enumerate((self.origin, self.mirror)):
            upstream.otherwise = Script(total=41 + number, end_at=0, failure=page)
        self.assertEqual(self.sample.file, self.cut_short(self.origin.otherwise).data)
        self.assertEqual([1, 1, 1], [len(u.asked("nar")) for u in self.scripted])

    def test_true_length_that_one_other_contradicts(self) -> None:
        """An upstream that says that the file ends where it was cut does not cut off a client."""
        self.mirror.otherwise = Script(total=100_000, end_at=100_000)
        client = self.cut_short(Script(cut_at=100_000))
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file, client.data)
