"""Admission: downloads that may begin, that wait, and that have their bytes kept."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.admission import Admission, Admitted
from ncps.aio.growing import Digest
from ncps.aio.spool import Spool
from ncps.errors import Busy, Unavailable
from ncps.observe.metrics import Metrics
from ncps.settings.schema.cache import DownloadSettings
from tests.fakes.metrics import series
from tests.fakes.threads import InlineThreads

MIB = 1024 * 1024


class AdmissionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.free: int | Exception = 100 * MIB
        self.metrics = Metrics()
        self.spools: list[tuple[int | None, bool]] = []
        self.admission = self.made()

    def made(self, *, downloads: int = 10, spooled: int = 50 * MIB, largest: int = 0) -> Admission:
        return Admission(
            self.clock,
            limits=DownloadSettings(
                max_count=downloads, max_spool_size_bytes=spooled, queue_timeout_s=60.0
            ),
            spare=self.spare,
            largest=largest,
            new_spool=self.new_spool,
            reached=lambda limit: self.metrics.limit_reached(limit).inc(),
        )

    @property
    def reached(self) -> dict[str, float]:
        return series(self.metrics.limit_reached)

    def new_spool(self, size: int | None, digests: tuple[Digest, ...], why: str) -> Spool:
        self.spools.append((size, bool(why)))
        workers = InlineThreads()
        return Spool(file=None, workers=workers, digests=digests, total=size, keep_error=why)

    def spare(self) -> int:
        if isinstance(self.free, Exception):
            raise self.free
        return self.free - 20 * MIB

    def asked(self, size: int | None) -> tuple[Admitted, Deferred[None]]:
        ticket = self.admission.begin()
        return ticket, Deferred.fromCoroutine(ticket.admit(size))

    def admitted(self, size: int | None) -> Admitted:
        ticket, turn = self.asked(size)
        self.successResultOf(turn)
        return ticket

    # How many

    def test_too_many_downloads_are_turned_away(self) -> None:
        """Beyond the limit a download is refused immediately, until another one ends."""
        self.admission = self.made(downloads=2)
        first, _ = self.admission.begin(), self.admission.begin()
        self.assertRaises(Busy, self.admission.begin)
        self.assertEqual(self.reached, {"cache-download-max-count": 1})
        first.close()
        first.close()
        self.admission.begin()
        self.assertRaises(Busy, self.admission.begin)

    # How much in flight

    def test_downloads_wait_while_spools_hold_too_much(self) -> None:
        """A download that does not fit waits until enough is published, in order."""
        first, second = self.admitted(30 * MIB), self.admitted(20 * MIB)
        large, large_turn = self.asked(25 * MIB)
        small, small_turn = self.asked(1 * MIB)
        self.assertNoResult(large_turn)
        self.assertNoResult(small_turn)  # or the small ones would starve the large one
        self.assertEqual(self.admission.in_flight, 50 * MIB)
        second.close()
        self.assertNoResult(large_turn)
        first.close()
        self.successResultOf(large_turn)
        self.successResultOf(small_turn)
        self.assertEqual(self.admission.in_flight, 26 * MIB)
        large.close()
        small.close()
        self.assertEqual(self.admission.in_flight, 0)
        self.assertEqual(self.reached, {})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_waiting_ends(self) -> None:
        """No download waits for ever; a download that gives up lets the next one begin."""
        self.admitted(40 * MIB)
        large, turn = self.asked(30 * MIB)
        self.clock.advance(30)
        _, behind = self.asked(5 * MIB)
        self.clock.advance(30)
        self.failureResultOf(turn, Busy)
        self.assertEqual(self.reached, {"cache-download-max-spool-size": 1})
        self.successResultOf(behind)
        large.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelled_wait_makes_way(self) -> None:
        """A download that is cancelled while it waits does not delay the others."""
        self.admitted(40 * MIB)
        large, turn = self.asked(30 * MIB)
        _, behind = self.asked(5 * MIB)
        turn.cancel()
        self.failureResultOf(turn, CancelledError)
        large.close()
        self.successResultOf(behind)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_larger_than_the_limit_goes_alone(self) -> None:
        """The limit is for all downloads together: a single download may exceed it."""
        huge = self.admitted(1000 * MIB)
        _, turn = self.asked(1)
        self.assertNoResult(turn)
        huge.close()
        self.successResultOf(turn)

    def test_unknown_sizes_count_as_they_grow(self) -> None:
        """A download of unknown size needs as much room as it has bytes."""
        ticket = self.admitted(None)
        self.assertEqual(ticket.room(None), "")
        written = 0
        ticket.follow(lambda: written)
        self.admitted(1 * MIB)
        written = 60 * MIB
        self.assertEqual(self.admission.in_flight, 61 * MIB)
        _, turn = self.asked(1)
        self.assertNoResult(turn)
        ticket.close()
        self.successResultOf(turn)

    def test_no_limit_is_none(self) -> None:
        """0 switches the limit off."""
        self.admission = self.made(spooled=0)
        self.admitted(1000 * MIB)
        self.admitted(1000 * MIB)

    # Room on the disk

    def test_reserve_is_left_free(self) -> None:
        """A file that needs a part of the reserve is not kept, and the reason is given."""
        self.assertEqual(self.admitted(40 * MIB).room(80 * MIB), "")
        self.admission = self.made()
        why = self.admitted(40 * MIB).room(81 * MIB)
        self.assertIn("81 MiB more would leave less than the reserve: 80 MiB may be", why)
        self.assertEqual(self.reached, {"cache-storage-min-free": 1})

    def test_a_spool_keeps_its_bytes_where_there_is_room(self) -> None:
        """The download counts the bytes of its spool; without room the spool gets the reason."""
        ticket = self.admitted(None)
        spool = ticket.spool(None, ())
        self.successResultOf(Deferred.fromCoroutine(spool.write(b"12345")))
        self.assertEqual(5, ticket.held)
        ticket.spool(81 * MIB, ())
        self.assertEqual(([(None, False), (81 * MIB, True)], 0), (self.spools, ticket.held))

    def test_space_for_other_downloads_is_not_free(self) -> None:
        """Downloads that begin together do not all use the same free space."""
        self.admission = self.made(spooled=0)
        first, second, third = (self.admitted(50 * MIB) for _ in range(3))
        self.assertEqual(first.room(50 * MIB), "")
        written = 0
        first.follow(lambda: written)
        self.assertNotEqual(second.room(50 * MIB), "")
        self.assertEqual(third.room(30 * MIB), "")
        written = 50 * MIB
        self.free = 50 * MIB  # what is written is no longer promised, but no longer free either
        self.assertNotEqual(second.room(1 * MIB), "")
        self.assertEqual((first.due, third.due), (0, 30 * MIB))
        first.close()
        third.close()
        self.assertEqual(second.room(30 * MIB), "")

    def test_a_stream_without_a_file_takes_no_space(self) -> None:
        """A download that streams through has no share of spools and disk."""
        passing = self.admitted(45 * MIB)
        _, turn = self.asked(30 * MIB)
        self.free = 10 * MIB
        self.assertNoResult(turn)
        self.assertNotEqual(passing.room(45 * MIB), "")
        self.successResultOf(turn)
        self.assertEqual(self.admission.in_flight, 30 * MIB)

    def test_full_disk_refuses_unknown_sizes(self) -> None:
        """A download of unknown size is not kept on a disk that is at its reserve."""
        self.free = 19 * MIB
        self.assertNotEqual(self.admitted(None).room(None), "")

    def test_disk_that_cannot_be_asked_is_tried(self) -> None:
        """If the free space is unknown, downloads are kept."""
        self.free = Unavailable("EIO")
        self.assertEqual(self.admitted(1 * MIB).room(1 * MIB), "")

    def test_second_spool_takes_the_place_of_the_first(self) -> None:
        """A download that begins again counts once."""
        ticket = self.admitted(40 * MIB)
        self.assertEqual(ticket.room(40 * MIB), "")
        ticket.follow(lambda: 40 * MIB)
        self.free = 60 * MIB
        self.assertEqual(ticket.room(40 * MIB), "")
        self.assertEqual((ticket.held, ticket.due), (40 * MIB, 40 * MIB))

    def test_a_nar_larger_than_the_store_is_not_kept(self) -> None:
        """A NAR that is too large for the store has room while it arrives, and none afterwards."""
        self.admission = self.made(largest=5 * MIB)
        ticket = self.admission.begin()
        self.assertEqual(ticket.room(5 * MIB + 1), "")
        self.assertEqual(self.admission.too_large(5 * MIB), "")
        self.assertEqual(self.reached, {})
        self.assertIn(str(5 * MIB), self.admission.too_large(5 * MIB + 1))
        self.assertEqual(self.reached, {"cache-max-size": 1})
        ticket.close()
