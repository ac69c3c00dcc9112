"""How twins are made, and how lost twins are made again."""

from __future__ import annotations

import os

from attrs import asdict, evolve

from ncps.cache.answers import Outcome
from ncps.cache.narinfo.record import parse_making
from ncps.cache.recompress.convert import ROOMY, Converter
from ncps.cache.recompress.remake import TwinRemaker
from ncps.cache.recompress.work import CALM_S, PASSED_S, RECENT_S, REST_S, REUSED_S
from ncps.codec import zstd
from ncps.errors import Corrupt, NotFound, StorageFull, Unavailable
from ncps.nix.narurl import VARIANTS
from ncps.ports import Block
from tests.fakes.metrics import counted
from tests.fakes.samples import packed
from tests.unit.cache.recompress.rig import TwinCase


class MakingTests(TwinCase):
    def test_narinfo_names_the_twin(self) -> None:
        """The narinfo names a file in zstd with the same NAR, and has the same signatures."""
        before = self.told(self.one)
        self.run_work()
        after = self.told(self.one)
        key = self.twin_key(self.one)
        data = self.download(key)
        decoder = zstd.decoder()
        self.assertEqual(self.one.nar, b"".join(decoder.feed(data)))
        changed = {"url", "compression", "file_hash", "file_size"}
        self.assertEqual(
            (key.url, "zstd", len(data)), (after.url, after.compression, after.file_size)
        )
        was, now = (asdict(each, recurse=False) for each in (before, after))
        self.assertEqual(changed, {name for name in was if was[name] != now[name]})
        self.assertEqual({"made": 1}, self.outcomes)

    def test_costs_are_counted(self) -> None:
        """The metrics have the bytes before and after, and the processor time."""
        self.run_work()
        metrics = self.metrics
        self.assertEqual(len(self.one.file), counted(metrics.recompress_read))
        self.assertEqual(
            len(self.download(self.twin_key(self.one))), counted(metrics.recompress_written)
        )
        self.assertEqual(0.5, counted(metrics.recompress_cpu))

    def test_old_url_is_answered(self) -> None:
        """The original stays what it was, and is not fetched again."""
        self.run_work()
        self.assertEqual(self.one.file, self.download(self.one.key))
        self.assertEqual({"published": 1}, self.ended)

    def test_once(self) -> None:
        """A NAR gets one twin."""
        self.run_work()
        self.run_work()
        self.assertEqual(1, len(self.transcoder.orders))

    def test_other_processes_are_told(self) -> None:
        """Other processes drop what they remember of both files."""
        del self.notices.published[:]
        self.run_work()
        heard = self.notices.published
        names = {self.one.key.file_name, self.twin_key(self.one).file_name}
        self.assertLessEqual(names, {notice.name for notice in heard if notice.kind == "nar"})

    def test_files_are_closed(self) -> None:
        """The unfinished file is closed and removed."""
        self.run_work()
        self.assertEqual([True], [made.is_closed for made in self.transcoder.made])
        self.assertEqual([False], [made.path.exists() for made in self.transcoder.made])

    def test_rest(self) -> None:
        """After no NAR was left, the catalog is not asked for a while."""
        self.run_work()
        two = packed("two", b"some contents of two " * 5000, "xz")
        self.keep(two)
        self.clock.advance(10)
        self.run_work(after_s=CALM_S - 11)
        self.assertEqual({"made": 1}, self.outcomes)
        self.run_work(after_s=2)
        self.assertEqual({"made": 2}, self.outcomes)

    def test_rest_after_failures(self) -> None:
        """The same rest follows if only NARs are left whose attempts have failed lately."""
        self.transcoder.errors.append(Unavailable("away"))
        self.refused(self.work.run(), Unavailable)
        self.run_work(after_s=REST_S)
        self.assertFalse(self.work.may_run())
        self.clock.advance(CALM_S)
        self.assertTrue(self.work.may_run())

    def test_reuse(self) -> None:
        """A NAR gets a twin only after a client has asked for it a second time."""
        self.rule(reused_s=REUSED_S)
        self.download(self.one.key)
        self.get(self.uses.flush())
        self.run_work()
        self.assertEqual([], self.transcoder.orders)
        self.clock.advance(REUSED_S)
        self.download(self.one.key)
        self.get(self.uses.flush())
        self.run_work()
        self.assertEqual({"made": 1}, self.outcomes)

    def test_old_use(self) -> None:
        """A NAR that was asked for again long ago gets no twin until a client asks once more.

        So an old store is not recompressed as a whole when recompression is switched on.
        """
        self.rule(reused_s=REUSED_S)
        self.clock.advance(REUSED_S)
        self.download(self.one.key)
        self.get(self.uses.flush())
        self.run_work(after_s=RECENT_S + 1)
        self.assertEqual([], self.transcoder.orders)
        self.download(self.one.key)
        self.get(self.uses.flush())
        self.run_work()
        self.assertEqual({"made": 1}, self.outcomes)

    def test_plain_files(self) -> None:
        """An uncompressed file is replaced only if that saves a tenth of its bytes."""
        plain = packed("plain", os.urandom(3000).hex().encode() * 2, "none")
        noise = packed("noise", os.urandom(3000), "none")
        self.keep(plain, noise)
        self.clock.advance(10)
        self.run_work()
        self.assertEqual({"made": 2, "large": 1}, self.outcomes)
        self.assertEqual(noise.key.url, self.told(noise).url)
        self.assertEqual("zstd", self.told(plain).compression)

    def test_share_of_the_processor(self) -> None:
        """The share holds for a twin unless a client waits for it."""
        self.converter = Converter(
            self.world,
            read=self.nars.read,
            transcoder=self.transcoder,
            threads=1,
            cpu_share=0.5,
        )
        self.rule()
        self.nars.remake = TwinRemaker(
            self.world, self.converter, self.core.records, self.verifier.verify
        ).remake
        self.run_work()
        self.lose(self.twin_key(self.one))
        self.download(self.twin_key(self.one))
        self.assertEqual([0.5, 0.0], [order.cpu_share for order in self.transcoder.orders])

    def test_larger_files_are_dropped(self) -> None:
        """A twin that is too large is removed, and not made again."""
        self.transcoder.padding = 2 * len(self.one.file)
        self.run_work()
        self.run_work()
        self.assertEqual({"large": 1}, self.outcomes)
        self.assertEqual(self.one.key.url, self.told(self.one).url)
        self.assertEqual({self.one.key}, set(self.store.objects))

    def test_damaged_original(self) -> None:
        """An original with wrong bytes is set aside, and gets no twin."""
        self.store.put(self.one.key, self.one.file[:-1] + b"!")
        tag = self.store.tag(self.one.key)
        self.catalog.records[self.one.key] = evolve(self.row(self.one.key), stored_tag=tag)
        self.board.nar_changed(self.one.key)
        self.run_work()
        self.assertEqual({"failed": 1}, self.outcomes)
        self.assertEqual([self.one.key], [key for key, _ in self.store.quarantined])
        self.assertEqual(self.one.key.url, self.told(self.one).url)

    def test_trouble_of_the_moment(self) -> None:
        """After a rest ncps makes the twins of other NARs, and later that of this one."""
        two = packed("two", b"some contents of two " * 5000, "xz")
        self.keep(two)
        self.clock.advance(10)
        for error in (StorageFull("full"), Unavailable("away")):
            self.transcoder.errors.append(error)
            self.refused(self.work.run(), type(error))
            made = len(self.transcoder.orders)
            self.run_work(after_s=REST_S - 1)
            self.assertEqual(made, len(self.transcoder.orders))
            self.run_work(after_s=2)
            self.assertEqual({"made": 1}, self.outcomes)
            self.assertEqual(self.twin_key(two).url, self.told(two).url)
            self.clock.advance(PASSED_S)
        self.run_work()
        self.assertEqual({"made": 2}, self.outcomes)

    def test_no_room(self) -> None:
        """A twin that is larger than the store may be is not published, and not made again."""
        self.largest = 1
        self.restart()
        self.run_work()
        self.run_work()
        self.assertEqual(({"large": 1}, 1), (self.outcomes, len(self.transcoder.orders)))
        self.assertEqual({self.one.key}, set(self.store.objects))

    def test_reserve_of_the_disk(self) -> None:
        """No twin is begun if it would take room that downloads may need soon."""
        room = len(self.one.file) * 150 // 100
        self.free = 1000 + ROOMY + room - 1
        self.refused(self.work.run(), StorageFull)
        self.assertEqual(([], 0), (self.transcoder.orders, self.admission.uploads))
        self.free += 1
        self.clock.advance(PASSED_S)
        self.run_work()
        self.assertEqual(({"made": 1}, 0), (self.outcomes, self.admission.uploads))

    def test_another_process_makes_it(self) -> None:
        """A twin whose lease another process holds is not made."""
        name = f"download:nar:{self.twin_key(self.one).file_name}"
        lease = self.get(self.leases.try_hold(name))
        self.run_work()
        self.assertEqual(({"busy": 1}, []), (self.outcomes, self.transcoder.orders))
        assert lease is not None
        self.get(lease.release())
        self.run_work()
        self.assertEqual({"busy": 1, "made": 1}, self.outcomes)

    def test_blocked_meanwhile(self) -> None:
        """A path that is blocked while its twin is made gets none, and no second attempt."""
        nar_hash = self.one.narinfo.nar_hash

        def block() -> None:
            self.catalog.blocks["x"] = Block(digest="x", hashes=(nar_hash,), blocked_at=self.now)

        self.transcoder.meddle = block
        self.run_work()
        self.catalog.blocks.clear()
        self.run_work()
        self.assertEqual({"taken": 1}, self.outcomes)

    def test_names_that_are_taken(self) -> None:
        """Other files of the NAR keep their names; if all are taken, there is no twin."""
        record = evolve(
            self.row(self.one.key),
            compression="zstd",
            encoding="zstd",
            made_from="",
            upstream="http://other",
        )
        for variant in range(VARIANTS):
            key = self.twin_key(self.one, variant)
            self.catalog.records[key] = evolve(record, key=key, recompressed_at=self.now)
            if variant == 0:
                self.assertEqual(
                    self.twin_key(self.one, 1),
                    self.get(self.maker._name_of(self.row(self.one.key))),
                )
        self.run_work()
        self.assertEqual({"taken": 1}, self.outcomes)

    def test_sidecar_says_how_it_was_made(self) -> None:
        """A rebuild finds the twin under its name, and how to make it again."""
        self.run_work()
        text = self.sidecars.texts[self.one.digest]
        self.assertEqual((self.one.key.file_name, 3), parse_making(text))


class LostTwinTests(TwinCase):
    def setUp(self) -> None:
        super().setUp()
        self.run_work()
        self.key = self.twin_key(self.one)
        self.bytes = self.download(self.key)

    def test_narinfo_falls_back(self) -> None:
        """The narinfo names the original again, without a question to an upstream."""
        self.lose(self.key)
        asked = len(self.origin.log)
        told = self.told(self.one)
        self.assertEqual((self.one.key.url, "xz"), (told.url, told.compression))
        self.assertEqual(
            (self.one.narinfo.file_hash, len(self.one.file)), (told.file_hash, told.file_size)
        )
        self.assertEqual(asked, len(self.origin.log))

    def test_it_gets_a_twin_again(self) -> None:
        """The next run makes the same twin."""
        self.lose(self.key)
        self.told(self.one)
        self.run_work()
        self.assertEqual(self.key.url, self.told(self.one).url)
        self.assertEqual(self.bytes, self.download(self.key))

    def test_its_url_is_answered(self) -> None:
        """A client that has the URL gets the same bytes, even if the level has changed since."""
        self.lose(self.key)
        self.rule(level=12)
        self.assertEqual(self.bytes, self.download(self.key))
        self.assertEqual({"made": 1, "remade": 1}, self.outcomes)
        self.assertEqual([3, 3], [order.level for order in self.transcoder.orders])
        self.assertTrue(self.transcoder.orders[-1].is_urgent)

    def test_it_is_found_damaged(self) -> None:
        """Damaged bytes are set aside, and the twin is made again for the client that asked."""
        self.store.put(self.key, self.bytes[:-1] + b"!")
        self.board.nar_changed(self.key)
        self.assertEqual(self.bytes, self.download(self.key))
        self.assertEqual([self.key], [key for key, _ in self.store.quarantined])

    def test_original_is_gone_too(self) -> None:
        """The original is fetched, even without its row, and the twin is made from it."""
        self.lose(self.key)
        self.lose(self.one.key)
        self.get(self.catalog.forget_nar(self.one.key))
        self.assertEqual(self.bytes, self.download(self.key))

    def test_original_is_damaged(self) -> None:
        """The original is set aside and fetched again, and the twin is made from it."""
        self.lose(self.key)
        self.store.put(self.one.key, self.one.file[:-1] + b"!")
        tag = self.store.tag(self.one.key)
        self.catalog.records[self.one.key] = evolve(self.row(self.one.key), stored_tag=tag)
        self.board.nar_changed(self.one.key)
        self.assertEqual(self.bytes, self.download(self.key))
        self.assertEqual([self.one.key], [key for key, _ in self.store.quarantined])
        self.assertEqual(self.one.file, self.download(self.one.key))

    def test_narinfo_of_a_twin_without_an_original(self) -> None:
        """The upstream is asked for its narinfo again."""
        self.lose(self.key)
        self.get(self.catalog.forget_nar(self.one.key))
        self.assertEqual(self.one.key.url, self.told(self.one).url)

    def test_other_bytes_come_out(self) -> None:
        """If another version of zstd writes other bytes, ncps sends none, and tries once."""
        self.lose(self.key)
        self.transcoder.padding = 10
        for _ in range(2):
            failure = self.failureResultOf(self.open(self.key)).value
            self.assertIn("another version of zstd", str(failure))
        self.assertEqual(2, len(self.transcoder.orders))
        self.assertEqual({"made": 1, "failed": 1}, self.outcomes)

    def test_room(self) -> None:
        """The room for it is reserved, so that downloads leave it; the reserve stays free."""
        self.lose(self.key)
        size = len(self.bytes)
        self.free = 1000 + size - 1
        self.failureResultOf(self.open(self.key), StorageFull)
        self.assertEqual(1, len(self.transcoder.orders))
        self.free += 1
        spare: list[bool] = []
        self.transcoder.meddle = lambda: spare.append(self.admission.has_spare(1))
        self.assertEqual(self.bytes, self.download(self.key))
        self.assertEqual(([False], True), (spare, self.admission.has_spare(1)))

    def test_head(self) -> None:
        """HEAD makes a lost twin again, and then tells its size."""
        self.lose(self.key)
        size, outcome = self.get(self.nars.stat(self.key))
        self.assertEqual((len(self.bytes), Outcome.MISS), (size, outcome))
        self.assertTrue(self.row(self.key).is_stored)

    def test_head_of_other_bytes(self) -> None:
        """HEAD of a twin that cannot be made again fails as GET does, whichever comes first."""
        self.lose(self.key)
        self.transcoder.padding = 10
        self.refused(self.nars.stat(self.key), NotFound)
        self.failureResultOf(self.open(self.key), NotFound)
        self.refused(self.nars.stat(self.key), NotFound)

    def test_another_process_makes_it(self) -> None:
        """The client gets the time after which it should ask again."""
        self.lose(self.key)
        lease = self.get(self.leases.try_hold(f"download:nar:{self.key.file_name}"))
        assert lease is not None
        error = self.failureResultOf(self.open(self.key), Unavailable).value
        self.assertEqual(5.0, error.retry_after)
        self.get(lease.release())

    def test_trouble(self) -> None:
        """Temporary errors reach the client."""
        self.lose(self.key)
        for kind in (Corrupt, StorageFull):
            self.transcoder.errors.append(kind("now"))
            self.failureResultOf(self.open(self.key), kind)
