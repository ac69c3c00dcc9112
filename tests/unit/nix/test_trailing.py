"""Trailing digests: used while they are fast enough, and given up otherwise."""

from __future__ import annotations

from math import inf

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ncps.codec import encoder
from ncps.nix.hashes import sha256_of
from ncps.nix.judge import Doubtful, Judge, Look, WrongNar
from ncps.nix.narcheck import NarDigest
from ncps.nix.narurl import opaque_key
from ncps.nix.trailing import (
    LAG_S,
    MOST_BEHIND,
    SURE_S,
    TrailingDigest,
    is_crowded,
    is_too_late,
)
from ncps.ports import NarRecord

MIB = 1024 * 1024
NAR = bytes(range(256)) * 40


class TooLateTests(SynchronousTestCase):
    """The rule for a check that is too slow: a function of numbers."""

    def test_work_that_waits(self) -> None:
        """A tenth of a second of work may wait, for any file."""
        for compression_s, bearable in ((0.5, 2 * MIB), (20.0, MIB // 20), (0.01, MOST_BEHIND)):
            self.assertFalse(is_too_late(bearable, 10 * MIB, compression_s))
        self.assertTrue(is_too_late(2 * MIB + 1, 10 * MIB, 0.5))
        self.assertTrue(is_too_late(MIB, 10 * MIB, 20.0))

    def test_bytes_that_wait(self) -> None:
        """Waiting bytes have a limit, for any cost of the work."""
        for size, cost_s in ((10**12, 0.001), (None, 1.0), (10**9, inf)):
            self.assertFalse(is_too_late(MOST_BEHIND, size, cost_s))
            self.assertTrue(is_too_late(MOST_BEHIND + 1, size, cost_s))

    @given(st.integers(0, 10**8), st.integers(1, 10**11), st.floats(0, 1e5))
    def test_bounds_of_waiting_bytes(self, behind: int, size: int, cost_s: float) -> None:
        """Waiting bytes cost at most the defined time and memory."""
        if not is_too_late(behind, size, cost_s):
            self.assertLessEqual(behind, MOST_BEHIND)
            self.assertLessEqual(behind / size * cost_s, LAG_S * 1.000001)


class CrowdedTests(SynchronousTestCase):
    """The rule for a crowded machine: a function of two times."""

    def test_half_of_the_time_may_be_waiting(self) -> None:
        """A check may wait for a core as long as it works, but not longer."""
        for work_s, elapsed_s, is_so in (
            (1.0, 1.0, False),
            (1.0, 2.0, False),
            (1.0, 2.1, True),
            (SURE_S, 2.1 * SURE_S, True),
            (SURE_S / 2, 100.0, False),
        ):
            self.assertEqual(is_so, is_crowded(work_s, elapsed_s))

    def test_old_times_do_not_count(self) -> None:
        """Only recent times count."""
        digest = TrailingDigest(NarDigest("none"), None)
        digest.took(3600.0, 3600.0)
        digest.took(SURE_S / 2, SURE_S)
        self.assertFalse(digest.is_given_up)
        digest.took(SURE_S / 2, 2 * SURE_S)
        self.assertTrue(digest.is_given_up)
        digest.took(1.0, 1.0)
        self.assertTrue(digest.is_given_up)


class VerdictTests(SynchronousTestCase):
    """The verdicts with a checked NAR, and with a check that was given up."""

    def setUp(self) -> None:
        maker = encoder("zstd")
        self.file = maker.feed(NAR) + maker.finish()
        self.record = NarRecord(
            key=opaque_key("zstd", sha256_of(NAR)),
            compression="zstd",
            file_hash=sha256_of(self.file),
            file_size=len(self.file),
            nar_hash=sha256_of(NAR),
            nar_size=len(NAR),
        )

    def fed(self, record: NarRecord, look: Look, *, is_late: bool = False) -> Judge:
        """Return a judge that has read the file; the check has fallen behind if `is_late`."""
        judge = Judge(record.key, record, look=look)
        for digest in judge.digests:
            if isinstance(digest, TrailingDigest) and is_late:
                self.assertTrue(digest.fell_behind(MOST_BEHIND + 1))
            digest.feed(self.file)
        return judge

    def trailing(self, record: NarRecord, look: Look) -> int:
        digests = Judge(record.key, record, look=look).digests
        return sum(isinstance(digest, TrailingDigest) for digest in digests)

    def test_files_whose_check_may_trail(self) -> None:
        """The check may trail only if the file can be judged without it."""
        xz = evolve(self.record, compression="xz", key=opaque_key("xz", sha256_of(NAR)))
        for look, of_zstd, of_xz in (
            (Look.ALWAYS, 0, 0),
            (Look.KEEPING_PACE, 1, 1),
            (Look.IF_CHEAP, 1, 0),
        ):
            self.assertEqual(
                (of_zstd, of_xz), (self.trailing(self.record, look), self.trailing(xz, look))
            )
        for vague in (evolve(self.record, file_hash=None), evolve(self.record, file_size=None)):
            judge = Judge(vague.key, vague, look=Look.KEEPING_PACE)
            self.assertEqual(2, len(judge.digests))
            self.assertEqual(0, self.trailing(vague, Look.KEEPING_PACE))

    def test_the_nar_counts_as_verified_only_if_it_was_looked_into(self) -> None:
        """Without the check FileHash decides, and the inspection verifies the NAR later."""
        for is_late in (False, True):
            judge = self.fed(self.record, Look.KEEPING_PACE, is_late=is_late)
            self.assertEqual(not is_late, judge.judge(len(self.file)).nar_verified)

    def test_another_nar_is_found_while_the_look_keeps_pace(self) -> None:
        """A trailing check finds a wrong NAR as an awaited check does."""
        other = evolve(self.record, nar_hash=sha256_of(b"other"))
        other = evolve(other, key=opaque_key("zstd", sha256_of(b"other")))
        judge = self.fed(other, Look.KEEPING_PACE)
        self.assertRaises(WrongNar, judge.judge, len(self.file))
        late = self.fed(other, Look.KEEPING_PACE, is_late=True)
        self.assertFalse(late.judge(len(self.file)).nar_verified)

    def test_a_false_file_hash_is_a_doubt_if_the_look_was_given_up(self) -> None:
        """After a wrong FileHash a second reading lets NarHash decide."""
        false = evolve(self.record, file_hash=sha256_of(b"false"))
        judge = self.fed(false, Look.KEEPING_PACE)
        self.assertTrue(judge.judge(len(self.file)).nar_verified)
        late = self.fed(false, Look.KEEPING_PACE, is_late=True)
        self.assertRaises(Doubtful, late.judge, len(self.file))
        inspector = late.inspector()
        inspector.feed(self.file)
        self.assertTrue(late.overrule(inspector, len(self.file)).nar_verified)
