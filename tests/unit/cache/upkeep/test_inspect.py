"""Inspection: the slow background check of stored NARs that were never verified."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ncps.cache.upkeep import inspect
from ncps.cache.upkeep.inspect import Inspection
from ncps.codec import xz
from ncps.nix.hashes import sha256_of
from ncps.nix.judge import Look
from tests.fakes.samples import sample
from tests.unit.cache.rig import CoreCase


class InspectionTests(CoreCase):
    inner_look = Look.IF_CHEAP

    def setUp(self) -> None:
        super().setUp()
        self.sample = sample(size=500_000)
        self.key = self.sample.key
        self.origin.add(self.sample)

    def inspect(self, rate: int = 1 << 30) -> Deferred[None]:
        """Start to inspect."""
        inspection = Inspection(catalog=self.catalog, verifier=self.verifier, bytes_per_second=rate)
        return self.start(inspection.run())

    def test_what_was_never_looked_into_is_verified_once(self) -> None:
        """A NAR in xz is checked, marked, and not checked again."""
        self.learn(self.sample)
        self.download(self.key)
        self.assertIsNone(self.catalog.records[self.key].verified_at)
        for _ in range(2):
            done = self.inspect()
            self.clock.pump([0.1] * 10)
            self.successResultOf(done)
            self.assertEqual({"right": 1}, self.verified)
            self.assertIsNotNone(self.catalog.records[self.key].verified_at)

    def test_what_is_in_a_file_that_was_asked_for_by_its_name_is_found_out(self) -> None:
        """No narinfo names its NAR, so the NarHash is computed; other files stay as they are."""
        self.download(self.sample.conventional)
        junk = b"no xz file at all"
        self.origin.nars[f"nar/{sha256_of(junk).nix32}.nar.xz"] = junk
        key = type(self.key)(sha256_of(junk).nix32, "xz")
        self.download(key)
        self.assertIsNone(self.catalog.records[self.sample.conventional].nar_hash)
        done = self.inspect()
        self.clock.pump([0.1] * 10)
        self.successResultOf(done)
        self.assertEqual({"right": 2}, self.verified)
        record = self.catalog.records[self.sample.conventional]
        self.assertEqual(
            (self.sample.narinfo.nar_hash, len(self.sample.nar), "xz"),
            (record.nar_hash, record.nar_size, record.compression),
        )
        self.assertIsNone(self.catalog.records[key].nar_hash)
        self.assertEqual(junk, self.download(key))

    def test_the_rate_is_kept(self) -> None:
        """A file of N bytes takes at least N divided by the rate in seconds."""
        self.learn(self.sample)
        self.download(self.key)
        done = self.inspect(rate=len(self.sample.file) // 10)
        self.clock.advance(9.0)
        self.assertNoResult(done)
        self.clock.pump([0.5] * 20)
        self.successResultOf(done)
        self.assertEqual({"right": 1}, self.verified)

    def test_a_rate_of_zero_inspects_nothing(self) -> None:
        """If the check is switched off, nothing is read."""
        self.learn(self.sample)
        self.download(self.key)
        self.successResultOf(self.inspect(rate=0))
        self.assertEqual({}, self.verified)

    def test_one_that_takes_too_much_memory_is_left_until_the_next_run(self) -> None:
        """It is read once in a run, and the NARs after it are verified."""
        self.patch(inspect, "BATCH", 1)
        self.patch(xz, "MEMORY_LIMIT", 64 * 1024)
        other = sample("other", compression="gzip")
        self.origin.add(other)
        for each in (self.sample, other):
            self.learn(each)
            self.download(each.key)
            self.clock.advance(1.0)
        done = self.inspect()
        self.clock.pump([0.1] * 20)
        self.successResultOf(done)
        self.assertEqual({"right": 1}, self.verified)
        self.assertIsNone(self.catalog.records[self.key].verified_at)
        self.assertIsNotNone(self.catalog.records[other.key].verified_at)
