"""Uploads in a store that is too full, and uploads whose narinfo never came."""

from __future__ import annotations

from attrs import evolve

from ncps.cache.upkeep.abandoned import PAUSE_S, AbandonedUploads
from ncps.cache.upkeep.evict import Bounds
from ncps.errors import Unavailable
from tests.contract.samples import entry, key_of, stored
from tests.fakes.metrics import counted
from tests.unit.cache.upkeep.rig import GRACE_S, HOUR, SIZE, TRUSTED, EvictionCase


class OnlyCopyCase(EvictionCase):
    def upload(self, number: int) -> None:
        """Make an upload; the higher its number, the longer ago."""
        record = self.keep(number)
        record = evolve(record, uploaded_at=record.stored_at, upstream="", origin_url="")
        self.get(self.catalog.mark_stored(record))


class OnlyCopyTests(OnlyCopyCase):
    def test_uploads_stay(self) -> None:
        """The oldest NARs were uploaded: younger ones that upstreams have are removed."""
        for number in range(11):
            (self.upload if number > 3 else self.keep)(number)
        self.check()
        self.assertEqual([0, *range(4, 11)], self.left())

    def test_a_store_full_of_uploads_stays_full(self) -> None:
        """Not one is removed, after any time."""
        for number in range(12):
            self.upload(number)
        self.check()
        self.clock.advance(HOUR)
        self.check()
        self.assertEqual(list(range(12)), self.left())

    def test_an_upload_that_an_upstream_has_is_like_any(self) -> None:
        """Its origin is known, so it can be fetched again."""
        for number in range(11):
            self.upload(number)
            self.get(self.catalog.add_narinfo(entry(number, verified_by=TRUSTED), stored(number)))
        self.check()
        self.assertEqual(list(range(8)), self.left())


class MayGoTests(OnlyCopyCase):
    bounds = Bounds(high=10 * SIZE, low=8 * SIZE, grace_s=GRACE_S, keeps_only_copies=False)

    def test_uploads_go_after_all_others(self) -> None:
        """If a setting allows that, the oldest uploads are removed after all other NARs."""
        for number in range(12):
            (self.upload if number > 2 else self.keep)(number)
        self.check()
        self.assertEqual(list(range(3, 11)), self.left())


class AbandonedTests(OnlyCopyCase):
    def setUp(self) -> None:
        super().setUp()
        self.abandoned = AbandonedUploads(self.world, self.narinfos, self.uses, grace_s=HOUR)

    def nar(self, number: int, ago_s: float) -> None:
        """Make an uploaded NAR without a narinfo."""
        at = self.at(ago_s)
        record = stored(number, stored_size=SIZE, stored_at=at, last_used_at=at, uploaded_at=at)
        self.get(self.catalog.mark_stored(evolve(record, upstream="", origin_url="")))
        self.store.put(key_of(number), bytes(SIZE))

    def look(self) -> None:
        looking = self.start(self.abandoned.check())
        for _ in range(3):
            self.clock.advance(PAUSE_S)
        self.successResultOf(looking)

    def here(self) -> list[int]:
        """Return the NARs that are there, by row and bytes."""
        rows = [n for n in range(9) if (r := self.catalog.records.get(key_of(n))) and r.is_stored]
        self.assertEqual(rows, [n for n in range(9) if key_of(n) in self.store.objects])
        return rows

    def test_a_nar_without_a_narinfo_goes_after_a_while(self) -> None:
        """Not earlier, and no NAR that has a narinfo."""
        self.nar(1, HOUR + 1)
        self.nar(2, HOUR - 1)
        self.nar(3, HOUR + 1)
        self.get(self.catalog.add_narinfo(entry(3), stored(3)))
        self.look()
        self.assertEqual([2, 3], self.here())
        self.assertEqual(1, counted(self.metrics.abandoned_uploads))

    def test_a_nar_that_was_asked_for_stays(self) -> None:
        """A client that comes again finds the NAR, and sends the narinfo next."""
        self.nar(1, HOUR + 1)
        self.uses.nar(key_of(1))
        self.look()
        self.assertEqual([1], self.here())

    def test_a_narinfo_that_comes_at_this_moment_keeps_it(self) -> None:
        """The narinfo's upload has the lease, or has written the row before the lease was free."""
        self.nar(1, HOUR + 1)
        lease = self.get(self.leases.take(f"download:nar:{key_of(1).file_name}"))
        self.look()
        self.assertEqual([1], self.here())
        self.get(lease.release())

    def test_a_database_that_is_away_loses_nothing(self) -> None:
        """The next look removes them."""
        self.nar(1, HOUR + 1)
        self.catalog.failing = Unavailable("away")
        self.look()
        self.catalog.failing = None
        self.assertEqual([1], self.here())
        self.look()
        self.assertEqual([], self.here())
