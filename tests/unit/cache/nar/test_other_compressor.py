"""Two upstreams have one NAR in files that differ: one file is behind one URL."""

from __future__ import annotations

from attrs import evolve

from ncps.cache.answers import Outcome
from ncps.cache.nar.downloads import RESUMED_S
from ncps.codec import encoder
from ncps.errors import Corrupt, NotFound, Unavailable
from ncps.nix.hashes import sha256_of
from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import NarKey
from tests.fakes.client import Client
from tests.fakes.samples import Sample, sample
from tests.fakes.upstream import Script
from tests.unit.cache.rig import CoreCase

SIZE = 300_000


class OtherCompressorCase(CoreCase):
    """Two upstreams whose honest files of one NAR differ; the third one has neither."""

    priorities = (10, 20, 30)

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


class OtherCompressorTests(OtherCompressorCase):
    """Shows which of the two files is behind the URL."""

    def test_file_that_is_gone_for_good_is_replaced(self) -> None:
        """A URL can still be answered: its NAR comes in the file that an upstream has."""
        self.origin.nars.clear()
        self.assertEqual(self.other.file, self.download(self.sample.key))
        told = NarInfo.parse(self.get(self.narinfos.get(self.sample.digest)).text)
        self.assertEqual(self.other.narinfo.file_hash, told.file_hash)

    def test_file_that_its_upstream_has_replaced(self) -> None:
        """The same where the upstream has compressed it anew, and nobody else has it."""
        self.mirror.narinfos.clear()
        self.origin.nars.clear()
        self.origin.add(self.other)
        self.assertEqual(self.other.file, self.download(self.sample.key))
        self.assertEqual(Outcome.HIT, self.get(self.nars.open(self.sample.key)).outcome)

    def test_clients_that_have_some_of_what_an_only_upstream_has_now(self) -> None:
        """They go on in it after a restart, too."""
        del self.upstreams.candidates[1:], self.scripted[1:]
        self.origin.nars.clear()
        self.origin.add(self.other)
        self.origin.scripts.extend([Script(error=NotFound("status 404")), Script(stall_at=100_000)])
        _, client = self.successResultOf(self.open(self.sample.key))
        self.origin.otherwise = Script(error=Unavailable("reset"))
        self.origin.release(Unavailable("reset"))
        self.clock.pump([1.0] * 100)
        self.failureResultOf(client.done, Unavailable)
        self.origin.otherwise = Script()
        self.restart()
        self.assert_resumed()

    def test_head_of_a_file_that_is_gone_while_an_upstream_is_away(self) -> None:
        """HEAD says that the NAR can be had: an upstream that is away has no say."""
        self.origin.nars.clear()
        for candidate in self.upstreams.candidates[2:]:
            for _ in range(3):
                candidate.health.failed("refused")
        self.scripted[2].is_away = True
        self.assertEqual((None, Outcome.MISS), self.get(self.nars.stat(self.sample.key)))
        self.assertEqual(self.other.file, self.late_download(self.sample.key))

    def late_download(self, key: NarKey) -> bytes:
        """Fetch a NAR that comes in the second round."""
        opening = self.open(key)
        self.clock.pump([0.2] * 5)
        _, client = self.successResultOf(opening)
        self.successResultOf(client.done)
        return client.data

    def test_bytes_that_were_stored_once_are_the_only_ones(self) -> None:
        """Also after a loss, a URL stands for the bytes that it stood for (P5)."""
        self.download(self.sample.key)
        self.store.objects.clear()
        self.origin.nars.clear()
        self.failureResultOf(self.open(self.sample.key), Corrupt)
        self.origin.add(self.sample)
        self.assertEqual(self.sample.file, self.download(self.sample.key))

    def test_clients_that_have_some_of_the_other_file_go_on_in_it(self) -> None:
        """A client that was cut in the replacing file gets the rest of that file."""
        self.cut_in_the_other_file()
        self.assert_resumed()

    def test_they_go_on_in_it_in_the_next_life(self) -> None:
        """After a restart, the cache still knows the replacing file."""
        self.cut_in_the_other_file()
        self.restart()
        self.assert_resumed()

    def cut_in_the_other_file(self) -> None:
        """Let a client be cut in the middle of the file."""
        self.origin.nars.clear()
        self.mirror.scripts.append(Script(stall_at=100_000))
        _, client = self.successResultOf(self.open(self.sample.key))
        self.mirror.otherwise = Script(error=Unavailable("reset"))
        self.mirror.release(Unavailable("reset"))
        self.clock.pump([1.0] * 100)
        self.failureResultOf(client.done, Unavailable)
        self.mirror.otherwise = Script()

    def assert_resumed(self) -> None:
        """Check that a client with a part gets the rest of the other file."""
        part = self.start(self.nars.open(self.sample.key, is_part=True))
        self.clock.pump([1.0] * 5)
        nar = self.successResultOf(part)
        self.assertEqual(len(self.other.file), nar.size)
        rest = Client(self.get(nar.body(50_000)))
        self.successResultOf(rest.done)
        self.assertEqual(self.other.file[50_000:], rest.data)
        nar.close()

    def test_a_client_that_has_some_from_elsewhere_gets_nothing_else(self) -> None:
        """A request for the rest means that file, also beside requests for the whole.

        Another process, or an earlier life of this one, may have sent the first part. The others
        have no part, and get the NAR.
        """
        for is_first in (True, False):
            self.setUp()
            self.origin.scripts.append(Script(hold=True))
            begun = {
                is_part: self.start(self.nars.open(self.sample.key, is_part=is_part))
                for is_part in (is_first, not is_first)
            }
            self.origin.otherwise = Script(error=Unavailable("reset"))
            self.origin.release(Unavailable("reset"))
            self.assertNoResult(begun[False])
            self.assertEqual([], self.mirror.asked("nar"))
            self.clock.pump([1.0] * 5)
            self.failureResultOf(begun[True], Unavailable)
            nar = self.successResultOf(begun[False])
            self.assertEqual(len(self.other.file), nar.size)
            nar.close()

    def test_clients_that_have_some_get_nothing_else(self) -> None:
        """If clients have bytes of one file, the other one cannot take its place."""
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
        """For a minute after wrong bytes elsewhere, they do not get the rest of another file."""
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
        self.get_wrong_bytes()  # this does not begin another minute
        self.assertEqual([], self.mirror.asked("nar"))
        self.clock.advance(10)
        self.assertEqual(self.other.file, self.download(self.sample.key))

    def get_wrong_bytes(self) -> None:
        """Let a client get the beginning of a file that is wrong at its end."""
        self.origin.scripts.append(Script(lie_at=len(self.sample.file) - 1, stall_at=100_000))
        _, client = self.successResultOf(self.open(self.sample.key))
        self.origin.release()
        self.failureResultOf(client.done, Corrupt)
