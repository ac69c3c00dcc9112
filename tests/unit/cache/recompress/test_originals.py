"""When originals are removed, and what a rebuilt catalog has of twins and originals."""

from __future__ import annotations

from ncps.cache.narinfo.proof import Proofs
from ncps.cache.narinfo.record import parse_making
from ncps.cache.upkeep.rebuild import Rebuild
from ncps.errors import Malformed, Unavailable
from tests.fakes.metrics import counted
from tests.unit.cache.recompress.rig import BRIEF_S, KEEP_S, TwinCase


class OriginalTests(TwinCase):
    def check(self) -> None:
        self.get(self.originals.check())
        self.clock.advance(0)

    def test_it_goes_in_time(self) -> None:
        """Its bytes go after the time; its URL is answered from the upstream after that."""
        self.run_work()
        self.clock.advance(KEEP_S - 1)
        self.check()
        self.assertIn(self.one.key, self.store.objects)
        self.clock.advance(KEEP_S + 2)
        self.check()
        self.assertNotIn(self.one.key, self.store.objects)
        self.assertEqual(len(self.one.file), counted(self.metrics.recompress_freed))
        self.assertEqual(self.twin_key(self.one).url, self.told(self.one).url)
        self.assertEqual(self.one.file, self.download(self.one.key))
        self.assertEqual({"published": 2}, self.ended)

    def test_a_client_has_just_come(self) -> None:
        """A use that is not in the catalog yet counts as well."""
        self.run_work()
        self.clock.advance(3 * KEEP_S)
        self.download(self.one.key)
        self.check()
        self.assertIn(self.one.key, self.store.objects)

    def test_old_url_without_the_upstream(self) -> None:
        """A client with the old narinfo is told to try later; clients that ask now get the twin."""
        self.run_work()
        self.clock.advance(3 * KEEP_S)
        self.check()
        self.assertNotIn(self.one.key, self.store.objects)
        self.origin.is_away = True
        opening = self.open(self.one.key)
        self.clock.pump([1.0] * 60)
        self.failureResultOf(opening, Unavailable)
        told = self.told(self.one)
        self.assertEqual(self.twin_key(self.one).url, told.url)
        self.assertEqual(told.file_size, len(self.download(self.twin_key(self.one))))

    def test_it_goes_when_room_is_needed(self) -> None:
        """If the disk has little room, the original goes as soon as its grace is over."""
        self.run_work()
        self.is_tight = True
        self.clock.advance(BRIEF_S - 1)
        self.check()
        self.assertIn(self.one.key, self.store.objects)
        self.clock.advance(2)
        self.check()
        self.assertNotIn(self.one.key, self.store.objects)

    def test_without_a_twin_it_stays(self) -> None:
        """If the twin is lost before, the original stays."""
        self.run_work()
        self.lose(self.twin_key(self.one))
        self.clock.advance(3 * KEEP_S)
        self.check()
        self.assertIn(self.one.key, self.store.objects)

    def test_in_use(self) -> None:
        """An original whose lease another process holds stays until the lease ends."""
        self.run_work()
        self.clock.advance(3 * KEEP_S)
        lease = self.get(self.leases.try_hold(f"download:nar:{self.one.key.file_name}"))
        assert lease is not None
        self.check()
        self.assertIn(self.one.key, self.store.objects)
        self.get(lease.release())
        self.check()
        self.assertNotIn(self.one.key, self.store.objects)


class RebuildTests(TwinCase):
    def rebuild(self) -> None:
        """Lose the catalog, and make it anew from the store."""
        self.catalog = type(self.catalog)()
        self.restart()
        proofs = Proofs(
            clock=self.clock, workers=self.threads, vetting=self.vetting, fetch=self.adoption.open
        )
        self.get(
            Rebuild(self.world, adoption=self.adoption, vetting=self.vetting, proofs=proofs).run()
        )

    def test_twins_are_recorded_again(self) -> None:
        """The narinfo is the same, and a lost twin can be made again."""
        self.run_work()
        text = self.get(self.narinfos.get(self.one.digest)).text
        key = self.twin_key(self.one)
        data = self.download(key)
        self.rebuild()
        self.assertEqual(text, self.get(self.narinfos.get(self.one.digest)).text)
        row = self.row(key)
        self.assertEqual((self.one.key.file_name, 3), (row.made_from, row.made_level))
        self.lose(key)
        self.assertEqual(data, self.download(key))

    def test_old_url_after_a_rebuild(self) -> None:
        """The original is answered from the store, and later from its upstream."""
        self.run_work()
        text = self.told(self.one)
        self.rebuild()
        self.assertEqual(text, self.told(self.one))
        self.assertEqual(self.one.file, self.download(self.one.key))
        self.clock.advance(3 * KEEP_S)
        self.get(self.originals.check())
        self.assertEqual({self.twin_key(self.one)}, set(self.store.objects))
        self.rebuild()
        self.assertEqual(self.one.file, self.download(self.one.key))

    def test_damaged_lines(self) -> None:
        """A sidecar with a wrong line about its file is skipped."""
        self.run_work()
        before = self.sidecars.texts[self.one.digest]
        for line in (b"../x 3", b"a.nar 3", self.one.key.file_name.encode() + b" three", b""):
            text = before.partition(b"NcpsMadeFrom")[0] + b"NcpsMadeFrom: " + line + b"\n"
            self.assertRaises(Malformed, parse_making, text)
            self.sidecars.texts[self.one.digest] = text
            self.rebuild()
            self.assertEqual({}, self.catalog.entries)
