"""Judge: files whose NARs are checked while they arrive, and others."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from ncps.codec import encoder
from ncps.codec.ratio import ALLOWANCE
from ncps.errors import Corrupt
from ncps.nix.hashes import sha256_of
from ncps.nix.judge import Judge, Look
from ncps.nix.narurl import opaque_key
from ncps.ports import NarRecord

MIB = 1024 * 1024


class BombTests(SynchronousTestCase):
    """A file that becomes ten thousand times its size."""

    def setUp(self) -> None:
        size = ALLOWANCE + MIB
        maker = encoder("zstd")
        pieces = [maker.feed(bytes(MIB)) for _ in range(size // MIB)]
        self.file = b"".join([*pieces, maker.finish()])
        self.record = NarRecord(
            key=opaque_key("zstd", sha256_of(bytes(size))),
            compression="zstd",
            file_hash=sha256_of(self.file),
            file_size=len(self.file),
            nar_hash=sha256_of(bytes(size)),
            nar_size=size,
        )
        self.reached = 0

    def reach(self) -> None:
        self.reached += 1

    def seal(self, record: NarRecord, max_ratio: int) -> Judge:
        return Judge(record.key, record, max_ratio=max_ratio, reached=self.reach)

    def feed(self, seal: Judge) -> None:
        for digest in seal.digests:
            digest.feed(self.file)

    def test_promised_bomb_is_left_for_later(self) -> None:
        """Only FileHash is checked, and the NAR inside later; the file is not refused."""
        seal = self.seal(self.record, 10)
        self.assertEqual(len(seal.digests), 1)
        self.feed(seal)
        self.assertFalse(seal.judge(len(self.file)).nar_verified)
        self.assertEqual(self.reached, 1)

    def test_ratio_is_a_setting(self) -> None:
        """With a larger ratio such NARs are checked immediately."""
        seal = self.seal(self.record, 1_000_000)
        self.feed(seal)
        self.assertTrue(seal.judge(len(self.file)).nar_verified)
        self.assertEqual(self.reached, 0)

    def test_bomb_of_unknown_size_is_corrupt(self) -> None:
        """If only decompression can verify the file, it is Corrupt at the ratio."""
        unknown = evolve(self.record, file_hash=None, file_size=None)
        seal = self.seal(unknown, 10)
        self.assertRaises(Corrupt, self.feed, seal)
        self.assertEqual(self.reached, 1)

    def test_promised_size_that_is_exceeded_is_corrupt(self) -> None:
        """Decompression ends at NarSize, even if the ratio allows more."""
        seal = self.seal(evolve(self.record, nar_size=ALLOWANCE), 1_000_000)
        self.assertRaises(Corrupt, self.feed, seal)


class HashOfTheFileTests(SynchronousTestCase):
    """A narinfo has the same hash for the file and for the NAR inside."""

    def setUp(self) -> None:
        self.nar = b"a NAR, as it is" * 1000

    def judge(self, compression: str) -> Judge:
        told = sha256_of(self.nar)
        record = NarRecord(
            key=opaque_key(compression, told),
            compression=compression,
            file_hash=told,
            file_size=len(self.nar),
            nar_hash=told,
            nar_size=len(self.nar),
        )
        judge = Judge(record.key, record, look=Look.IF_CHEAP)
        for digest in judge.digests:
            digest.feed(self.nar)
        return judge

    def test_file_that_is_the_nar(self) -> None:
        """An uncompressed file with this hash is verified."""
        self.assertTrue(self.judge("none").judge(len(self.nar)).nar_verified)

    def test_file_that_only_has_the_hash_of_the_nar(self) -> None:
        """A compressed file with this hash is not verified, because the NAR inside differs."""
        self.assertFalse(self.judge("xz").judge(len(self.nar)).nar_verified)
