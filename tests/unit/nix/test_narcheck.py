"""Tests of the checks of NAR files."""

import json

from twisted.trial.unittest import SynchronousTestCase

from ncps.codec import CODECS, encoder
from ncps.errors import Corrupt, Refused
from ncps.nix.hashes import sha256_of
from ncps.nix.narcheck import FileDigest, NarDigest, examine
from ncps.nix.narinfo import NarInfo
from tests.fixtures import CLOSURE, NIX

SRC = (NIX / "src.nar").read_bytes()
INFO = NarInfo.parse((NIX / f"{CLOSURE[-1]}.narinfo").read_bytes())
COMPRESSED = sorted(set(CODECS) - {"none"})


class FileDigestTests(SynchronousTestCase):
    def test_it_hashes_the_file_as_it_is(self) -> None:
        """The hash does not depend on the pieces."""
        digest = FileDigest()
        for piece in (b"ab", b"", b"c"):
            digest.feed(piece)
        self.assertEqual(sha256_of(b"abc"), digest.finish())


class NarDigestTests(SynchronousTestCase):
    def test_files_of_nix_have_the_hash_of_their_narinfo(self) -> None:
        """NarHash and NarSize are those of Nix, in every compression."""
        for compression in COMPRESSED:
            digest = NarDigest(compression)
            data = (NIX / f"src.nar.{compression}").read_bytes()
            for byte in range(len(data)):
                digest.feed(data[byte : byte + 1])
            self.assertEqual(digest.finish(), (INFO.nar_hash, INFO.nar_size))
            self.assertIsNone(digest.listing)

    def test_a_listing_comes_out_if_asked_for(self) -> None:
        """A requested listing is that of Nix."""
        expected = json.loads((NIX / f"{CLOSURE[-1]}.ls").read_bytes())
        digest = NarDigest("none", listing=True)
        digest.feed(memoryview(SRC))
        self.assertIsNone(digest.listing)
        digest.finish()
        assert digest.listing is not None
        self.assertEqual(digest.listing.to_json(), expected)

    def test_without_listing_any_bytes_are_hashed(self) -> None:
        """Only the listing proves that a file is a NAR."""
        digest = NarDigest("none")
        digest.feed(b"no NAR")
        self.assertEqual(digest.finish(), (sha256_of(b"no NAR"), 6))
        digest = NarDigest("none", listing=True)
        with self.assertRaises(Corrupt):
            digest.feed(b"no NAR whatever else it may be")

    def test_truncation_and_trailing_garbage_are_corrupt(self) -> None:
        """A truncated file, extra bytes, and a wrong NAR inside a good file are Corrupt."""
        for compression in COMPRESSED:
            data = (NIX / f"src.nar.{compression}").read_bytes()
            for broken in (data[:-1], data + b"garbage", b""):
                with self.assertRaises(Corrupt):
                    examine([broken], compression)
            for inner in (SRC[:-8], SRC + bytes(8)):
                encode = encoder(compression)
                with self.assertRaises(Corrupt):
                    examine([encode.feed(inner), encode.finish()], compression)

    def test_a_bomb_stops_at_the_promised_size(self) -> None:
        """NarSize bytes are allowed, and one more is Corrupt."""
        for compression in COMPRESSED:
            data = (NIX / f"src.nar.{compression}").read_bytes()
            examined = examine([data], compression, max_size=len(SRC))
            self.assertEqual(examined.nar_size, len(SRC))
            with self.assertRaises(Corrupt) as caught:
                examine([data], compression, max_size=len(SRC) - 1)
            self.assertIn("longer", str(caught.exception))

    def test_a_compression_that_cannot_be_read_is_refused(self) -> None:
        """An unsupported compression is refused before the first byte."""
        with self.assertRaises(Refused):
            NarDigest("lzip")


class ExamineTests(SynchronousTestCase):
    def test_a_whole_file_is_examined(self) -> None:
        """`examine` returns hash, size and listing, from chunks of any size."""
        expected = json.loads((NIX / f"{CLOSURE[-1]}.ls").read_bytes())
        data = (NIX / "src.nar.xz").read_bytes()
        examined = examine([data[:100], memoryview(data)[100:]], "xz")
        self.assertEqual(examined.nar_hash, INFO.nar_hash)
        self.assertEqual(examined.nar_size, INFO.nar_size)
        self.assertEqual(examined.listing.to_json(), expected)
