"""URL, FileHash and FileSize are not signed: where they are false, the NAR inside decides."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from ncps.aio.spool import HOLD_BACK
from ncps.cache.answers import Outcome, Resized
from ncps.cache.nar.follow import RESUMED_S
from ncps.codec import encoder
from ncps.errors import Corrupt, NotFound, Unavailable
from ncps.nix.hashes import sha256_of
from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import NarKey
from tests.fakes.samples import Sample, sample
from tests.fakes.upstream import Script
from tests.unit.cache.rig import Client, CoreCase

FALSE_HASH = sha256_of(b"false")
SIZE = 300_000


class FalseFactsCase(CoreCase):
    """The origin is asked first and lies; what it has is right, unless a test says otherwise."""

    def setUp(self) -> None:
        super().setUp()
        self.sample = sample(size=SIZE)
        self.mirror.add(self.sample)

    def lie(self, **changes: Any) -> NarKey:
        """Have the origin say something false of the file; return the key it is served under."""
        self.origin.add(self.sample)
        self.origin.add(evolve(self.sample.altered(**changes), file=self.sample.file))
        return self.learned()

    def learned(self) -> NarKey:
        text = self.get(self.narinfos.get(self.sample.digest)).text
        return NarKey.parse(NarInfo.parse(text).url.rpartition("/")[2])

    def told(self) -> NarInfo:
        return NarInfo.parse(self.get(self.narinfos.get(self.sample.digest)).text)

    def assertCorrected(self) -> None:
        """What is said of the file from now on is true."""
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

    def test_wrong_nar_is_wrong_all_the_same(self) -> None:
        """Bytes that are neither what FileHash says nor what NarHash says go to nobody whole."""
        key = self.lie(file_hash=FALSE_HASH)
        self.mirror.nars.clear()
        self.origin.otherwise = Script(lie_at=1000)
        self.failureResultOf(self.open(key), Corrupt)
        self.assertEqual({}, self.store.objects)

    def test_bytes_without_a_row_are_taken_over_all_the_same(self) -> None:
        """What a crash left behind is judged as what comes: by its NAR."""
        key = self.lie(file_hash=FALSE_HASH)
        self.store.put(key, self.sample.file)
        self.assertEqual(self.sample.file, self.download(key))
        self.assertEqual([], self.origin.asked("nar"))
        self.assertCorrected()

    def test_file_that_cannot_be_kept_is_not_looked_into(self) -> None:
        """Without the bytes at hand a false FileHash cannot be overruled afterwards."""
        self.is_eager = False
        self.restart()
        self.is_full = True
        key = self.lie(file_hash=FALSE_HASH)
        self.origin.scripts.append(Script(stall_at=1000))
        client = self.client(key)
        self.origin.release()
        self.failureResultOf(client.done, Corrupt)

    def test_upstream_with_the_truth_goes_on_for_the_liar(self) -> None:
        """Another upstream's file is the same by the hash in its URL: cut bytes go on there."""
        key = self.lie(file_hash=FALSE_HASH)
        self.origin.scripts.extend(
            [Script(cut_at=100_000), Script(error=Unavailable("away")), Script(stall_at=0)]
        )
        self.assertEqual(self.sample.file, self.download(key))
        self.assertEqual([100_000], [offset for _, offset in self.mirror.asked("nar")])
        self.assertCorrected()


class UrlTests(FalseFactsCase):
    def test_url_that_leads_nowhere(self) -> None:
        """The file comes from where its FileHash is known."""
        key = self.lie(url=f"nar/{FALSE_HASH.nix32}.nar.xz")
        self.assertEqual(NarKey(self.sample.narinfo.nar_hash.nix32, "xz"), key)
        self.origin.nars.clear()
        self.assertEqual(self.sample.file, self.download(key))
        self.assertCorrected()

    def test_narinfo_of_a_file_that_is_nowhere(self) -> None:
        """If all of a narinfo is false, the NAR comes from whoever has it, in another file."""
        key = self.lie(url=f"nar/{FALSE_HASH.nix32}.nar.xz", file_hash=FALSE_HASH, file_size=7)
        self.origin.nars.clear()
        self.assertEqual(self.sample.file, self.download(key))
        self.assertCorrected()

    def test_other_file_is_an_answer_only_after_the_first_failed_twice(self) -> None:
        """An upstream that fails keeps nobody from a NAR that another one has."""
        key = self.lie(url=f"nar/{FALSE_HASH.nix32}.nar.xz", file_hash=FALSE_HASH)
        self.origin.otherwise = Script(error=Unavailable("status 500"))
        opening = self.open(key)
        self.assertEqual([], self.mirror.asked("nar"))
        self.clock.pump([0.2] * 2)
        _, client = self.successResultOf(opening)
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file, client.data)

    def test_who_has_a_part_gets_nothing_else(self) -> None:
        """Bytes behind a URL never change: who asks for the rest of them is told "later"."""
        key = self.lie(url=f"nar/{FALSE_HASH.nix32}.nar.xz", file_hash=FALSE_HASH)
        self.origin.otherwise = Script(error=Unavailable("status 500"))
        opening = self.start(self.nars.open(key, is_part=True))
        self.clock.pump([0.2] * 5)
        self.failureResultOf(opening, Unavailable)
        self.assertEqual([], self.mirror.asked("nar"))

    def test_url_that_no_narinfo_names_any_more(self) -> None:
        """Who has the old narinfo of a path gets its NAR, though another one is known by now."""
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
        """Where no narinfo is left, others cannot be asked, so it is no absence."""
        key = self.lie(url=f"nar/{FALSE_HASH.nix32}.nar.xz", file_hash=FALSE_HASH)
        self.origin.nars.clear()
        self.get(self.catalog.forget_narinfo(self.sample.digest))
        self.restart()
        opening = self.open(key)
        self.clock.pump([0.2] * 5)
        self.failureResultOf(opening, Unavailable)

    def test_same_opaque_url_is_the_same_file(self) -> None:
        """Whatever is said of it: a name that is no hash is nobody else's."""
        url = "https://cdn.example.org/x/uuid"
        self.sample = evolve(self.sample.altered(url=url), file=self.sample.file)
        self.mirror.add(self.sample)
        key = self.lie(file_hash=FALSE_HASH)
        self.origin.nars.clear()
        self.assertEqual(self.sample.file, self.download(key))
        self.assertCorrected()

    def test_other_file_that_is_wrong_as_well(self) -> None:
        """What comes in its place is judged like everything else."""
        key = self.lie(url=f"nar/{FALSE_HASH.nix32}.nar.xz", file_hash=FALSE_HASH)
        self.origin.nars.clear()
        self.mirror.otherwise = Script(lie_at=1000)
        self.failureResultOf(self.open(key), Corrupt, NotFound)
        self.assertEqual({}, self.store.objects)

    def test_file_that_holds_another_nar_is_asked_for_once(self) -> None:
        """Once it was found out, a client that comes for a part gets that of a good file."""
        other = sample("other", SIZE)
        key = self.lie(url=other.url, file_hash=sha256_of(other.file), file_size=len(other.file))
        self.origin.nars[other.url] = other.file
        self.mirror.is_away = True
        opening = self.open(key)
        self.clock.pump([1.0] * 100)
        self.failureResultOf(opening, Unavailable)
        self.mirror.is_away = False
        for _ in range(2):
            part = self.start(self.nars.open(key, is_part=True))
            self.clock.pump([1.0] * 60)
            nar = self.successResultOf(part)
            rest = Client(self.get(nar.body(1000)))
            self.successResultOf(rest.done)
            self.assertEqual(self.sample.file[1000:], rest.data)
            nar.close()
            self.restart()
        self.assertEqual(1, len(self.origin.asked("nar")))

    def test_url_of_another_paths_nar(self) -> None:
        """A narinfo cannot take another path's name away, whichever comes first."""
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
        """If nobody has a file of that size, the NAR decides, before any client is told."""
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
        """Without Content-Length, who was told a false size is broken off; who comes again is not.

        One that was too large is found out by the same bytes, one that was too small by others.
        """
        for size in self.sizes():
            self.setUp()
            key = self.lie(file_size=size)
            self.origin.otherwise = self.mirror.otherwise = Script(total=0)
            self.origin.scripts.append(Script(total=0, hold=True))
            opening = self.open(key)
            self.origin.release()
            _, client = self.successResultOf(opening)
            self.failureResultOf(client.done, Corrupt)
            self.assertEqual(self.sample.file, self.download(key))
            self.assertCorrected()

    def test_wrong_length_of_one_answer_is_no_dispute(self) -> None:
        """If another answer agrees with the narinfo, the first one was wrong."""
        self.origin.add(self.sample)
        key = self.learned()
        self.origin.scripts.append(Script(total=7))
        self.assertEqual(self.sample.file, self.download(key))
        self.assertEqual(1, len(self.mirror.asked("nar")))

    def test_head_does_not_repeat_it(self) -> None:
        """HEAD says a size only where the narinfo and an upstream agree."""
        key = self.lie(file_size=self.sizes()[0])
        self.assertEqual((None, Outcome.MISS), self.get(self.nars.stat(key)))
        self.download(key)
        size = len(self.sample.file)
        self.assertEqual((size, Outcome.HIT), self.get(self.nars.stat(key)))

    def test_it_is_not_final(self) -> None:
        """A size that a narinfo says and no answer has confirmed is not the last word."""
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
        """A piece up to the end is one of the true file."""
        key = self.lie(file_size=self.sizes()[0])
        nar = self.get(self.nars.open(key))
        size = self.get(nar.known_size())
        client = Client(self.get(nar.body(size - HOLD_BACK - 5, size)))
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file[-HOLD_BACK - 5 :], client.data)


class OtherCompressorTests(CoreCase):
    """Two upstreams whose honest files of one NAR differ."""

    def setUp(self) -> None:
        super().setUp()
        self.sample = sample(size=SIZE)
        maker = encoder("xz", 0)
        file = maker.feed(self.sample.nar) + maker.finish() + bytes(4)
        key = NarKey(sha256_of(file).nix32, "xz")
        self.other: Sample = evolve(
            self.sample.altered(url=key.url, file_hash=sha256_of(file), file_size=len(file)),
            file=file,
        )
        self.origin.add(self.sample)
        self.mirror.add(self.other)
        self.learn(self.sample)

    def test_file_that_is_gone_for_good_is_replaced(self) -> None:
        """A URL stays answerable: its NAR comes in the file that there still is."""
        self.origin.nars.clear()
        self.assertEqual(self.other.file, self.download(self.sample.key))
        told = NarInfo.parse(self.get(self.narinfos.get(self.sample.digest)).text)
        self.assertEqual(self.other.narinfo.file_hash, told.file_hash)

    def test_bytes_that_were_stored_once_are_the_only_ones(self) -> None:
        """After a loss, too, a URL stands for the bytes that it stood for (P5)."""
        self.download(self.sample.key)
        self.store.objects.clear()
        self.origin.nars.clear()
        self.failureResultOf(self.open(self.sample.key), Corrupt)
        self.origin.add(self.sample)
        self.assertEqual(self.sample.file, self.download(self.sample.key))

    def test_clients_that_have_some_of_the_other_file_go_on_in_it(self) -> None:
        """A client that was cut in the file that came instead gets its rest, and no other's."""
        self.cut_in_the_other_file()
        self.assert_resumed()

    def test_they_go_on_in_it_in_the_next_life(self) -> None:
        """Which file came instead is known after a restart, too."""
        self.cut_in_the_other_file()
        self.restart()
        self.assert_resumed()

    def cut_in_the_other_file(self) -> None:
        """Have a client cut in the middle of it."""
        self.origin.nars.clear()
        self.mirror.scripts.append(Script(stall_at=100_000))
        _, client = self.successResultOf(self.open(self.sample.key))
        self.mirror.otherwise = Script(error=Unavailable("reset"))
        self.mirror.release(Unavailable("reset"))
        self.clock.pump([1.0] * 100)
        self.failureResultOf(client.done, Unavailable)
        self.mirror.otherwise = Script()

    def assert_resumed(self) -> None:
        """Check that a client that has a part gets the rest of the other file."""
        part = self.start(self.nars.open(self.sample.key, is_part=True))
        self.clock.pump([1.0] * 5)
        nar = self.successResultOf(part)
        self.assertEqual(len(self.other.file), nar.size)
        rest = Client(self.get(nar.body(50_000)))
        self.successResultOf(rest.done)
        self.assertEqual(self.other.file[50_000:], rest.data)
        nar.close()

    def test_clients_that_have_some_get_nothing_else(self) -> None:
        """Where bytes of one file have left, the other one is no way to go on."""
        self.origin.scripts.extend([Script(hold=True, stall_at=100_000)])
        opening = self.open(self.sample.key)
        self.origin.release()
        _, client = self.successResultOf(opening)
        self.origin.nars.clear()
        self.origin.release(Unavailable("reset"))
        self.failureResultOf(client.done, Corrupt)
        self.failureResultOf(self.open(self.sample.key), Corrupt)
        self.assertEqual([], self.mirror.asked("nar"))

    def test_others_that_had_wrong_bytes_change_nothing_for_them(self) -> None:
        """Wrong bytes at other clients do not send them the rest of another file; for a minute."""
        self.origin.scripts.append(Script(stall_at=100_000))
        _, client = self.successResultOf(self.open(self.sample.key))
        self.origin.otherwise = Script(error=Unavailable("reset"))
        self.origin.release(Unavailable("reset"))
        self.clock.pump([1.0] * 100)
        self.failureResultOf(client.done, Unavailable)
        self.origin.otherwise = Script(lie_at=50_000)
        self.get_wrong_bytes()
        self.failureResultOf(self.open(self.sample.key), Corrupt)
        self.assertEqual([], self.mirror.asked("nar"))
        self.clock.advance(RESUMED_S - 10)
        self.get_wrong_bytes()  # which does not begin another minute
        self.assertEqual([], self.mirror.asked("nar"))
        self.clock.advance(10)
        self.assertEqual(self.other.file, self.download(self.sample.key))

    def get_wrong_bytes(self) -> None:
        """Have a client get the beginning of a file that is wrong at its end."""
        self.origin.scripts.append(Script(lie_at=len(self.sample.file) - 1, stall_at=100_000))
        _, client = self.successResultOf(self.open(self.sample.key))
        self.origin.release()
        self.failureResultOf(client.done, Corrupt)


class LengthTests(CoreCase):
    """Where no narinfo says a size, the first Content-Length is not the last word either."""

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
        """A client of what the origin breaks off and the others shall finish."""
        self.origin.scripts.append(origin)
        opening = self.open(self.key)
        self.clock.pump([1.0] * 5)
        _, client = self.successResultOf(opening)
        return client

    def test_false_length_that_two_others_contradict(self) -> None:
        """They are right, wherever the false answer broke off."""
        size = len(self.sample.file)
        for cut_at in (size, size // 2):
            self.setUp()
            client = self.cut_short(Script(total=size + 2000, cut_at=cut_at))
            self.successResultOf(client.done)
            self.assertEqual(self.sample.file, client.data)
            self.assertEqual(self.sample.file, self.download(self.key))

    def test_answer_that_gave_no_byte_has_said_no_size(self) -> None:
        """A web page, or an answer cut at once: the next one is taken, and nobody else is asked."""
        page = Corrupt("a web page instead of a NAR")
        others = (Script(), Script(total=0))  # one of them does not say its size
        for empty in (Script(total=41, end_at=0, failure=page), Script(total=41, cut_at=0)):
            for other in others:
                self.setUp()
                self.mirror.otherwise = other
                client = self.cut_short(empty)
                self.successResultOf(client.done)
                self.assertEqual(self.sample.file, client.data)
                self.assertEqual([1, 1, 0], [len(u.asked("nar")) for u in self.scripted])

    def test_who_waits_for_such_an_answer_is_told_that_its_size_was_wrong(self) -> None:
        """At once, so that nothing of it has gone to a client, and it can begin anew."""
        page = Corrupt("a web page instead of a NAR")
        self.origin.scripts.append(Script(total=41, end_at=0, stall_at=0, failure=page))
        nar, client = self.successResultOf(self.open(self.key))
        self.assertEqual(41, nar.size)
        self.origin.release()
        self.failureResultOf(client.done, Resized)
        self.assertEqual(self.sample.file, self.download(self.key))

    def test_one_upstream_is_enough_beside_web_pages(self) -> None:
        """Pages of several sizes outvote nobody."""
        page = Corrupt("a web page instead of a NAR")
        for number, upstream in enumerate((self.origin, self.mirror)):
            upstream.otherwise = Script(total=41 + number, end_at=0, failure=page)
        self.assertEqual(self.sample.file, self.cut_short(self.origin.otherwise).data)
        self.assertEqual([1, 1, 1], [len(u.asked("nar")) for u in self.scripted])

    def test_true_length_that_one_other_contradicts(self) -> None:
        """An upstream that says that the file ends where it was cut cuts no client off."""
        self.mirror.otherwise = Script(total=100_000, end_at=100_000)
        client = self.cut_short(Script(cut_at=100_000))
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file, client.data)
