"""Tests that every codec passes."""

import bz2
import contextlib
import gzip
import lzma
import random
import tracemalloc
from collections.abc import Iterable
from unittest.mock import Mock

import brotli
import lz4.frame
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ncps import codec
from ncps.codec import CODECS, decoder, encoder
from ncps.codec.stream import PIECE, Data, StreamDecoder
from ncps.errors import Corrupt, Refused
from tests.fixtures import NIX

NAR = (NIX / "src.nar").read_bytes()
COMPRESSIONS = sorted(set(CODECS) - {"none"})
REPEATABLE = sorted(set(COMPRESSIONS) - {"br"})

compressions = st.sampled_from(sorted(CODECS))


def packed(compression: str, data: bytes, level: int | None = None) -> bytes:
    """Compress all of `data`."""
    encode = encoder(compression, level)
    return encode.feed(data) + encode.finish()


def unpacked(compression: str, pieces: Iterable[Data]) -> bytes:
    """Decompress a file that is given in pieces."""
    decode = decoder(compression)
    data = b"".join([out for piece in pieces for out in decode.feed(piece)])
    decode.finish()
    return data


def cut(data: bytes, size: int) -> list[bytes]:
    """Cut `data` into pieces of `size`."""
    return [data[start : start + size] for start in range(0, len(data), size)]


class CodecTests(SynchronousTestCase):
    def test_files_of_nix_are_read(self) -> None:
        """Every compression of Nix 2.8 is decoded, in one piece and byte by byte."""
        for compression in COMPRESSIONS:
            data = (NIX / f"src.nar.{compression}").read_bytes()
            self.assertEqual(unpacked(compression, [data]), NAR)
            self.assertEqual(unpacked(compression, [memoryview(data)]), NAR)
            self.assertEqual(unpacked(compression, cut(data, 1)), NAR)

    def test_files_of_other_programs_are_read(self) -> None:
        """Files of the usual programs, and of the older lzma container, are decoded."""
        for compression, data in (
            ("xz", lzma.compress(NAR)),
            ("xz", lzma.compress(NAR, lzma.FORMAT_ALONE)),
            ("bzip2", bz2.compress(NAR)),
            ("gzip", gzip.compress(NAR)),
            ("br", brotli.compress(NAR)),
            ("lz4", lz4.frame.compress(NAR)),
        ):
            self.assertEqual(unpacked(compression, [data]), NAR)

    @given(compressions, st.binary(max_size=2000), st.integers(1, 300))
    def test_any_data_survives_the_round_trip(
        self, compression: str, data: bytes, size: int
    ) -> None:
        """Any data survives in pieces of any size."""
        encode = encoder(compression)
        file = b"".join([encode.feed(piece) for piece in cut(data, size)]) + encode.finish()
        self.assertEqual(unpacked(compression, cut(file, size)), data)

    @given(st.sampled_from(COMPRESSIONS), st.binary(max_size=200))
    def test_garbage_is_corrupt(self, compression: str, data: bytes) -> None:
        """Any invalid bytes, alone or after a good start, raise only Corrupt."""
        good = packed(compression, NAR)
        for file in (data, good[:100] + data, good + data, good[:2] + data):
            with contextlib.suppress(Corrupt):
                unpacked(compression, [file])
            with contextlib.suppress(Corrupt):
                unpacked(compression, cut(file, 7))

    @given(st.sampled_from(COMPRESSIONS), st.integers(0, 10_000), st.integers(1, 255))
    def test_a_flipped_bit_never_escapes_as_another_error(
        self, compression: str, where: int, flip: int
    ) -> None:
        """A flipped bit raises Corrupt, or does no harm where the format ignores it."""
        file = bytearray(packed(compression, NAR))
        file[where % len(file)] ^= flip
        with contextlib.suppress(Corrupt):
            unpacked(compression, [bytes(file)])

    def test_a_truncated_file_is_corrupt(self) -> None:
        """A file that is cut at any byte raises Corrupt."""
        for compression in COMPRESSIONS:
            file = packed(compression, NAR)
            for length in range(len(file)):
                with self.assertRaises(Corrupt):
                    unpacked(compression, [file[:length]])

    def test_trailing_garbage_is_corrupt(self) -> None:
        """Bytes after the end raise Corrupt, in the same piece or in a later one."""
        for compression in COMPRESSIONS:
            file = packed(compression, NAR)
            for garbage in (b"\0", b"x", b"garbage" * 20, file[: len(file) // 2]):
                with self.assertRaises(Corrupt):
                    unpacked(compression, [file + garbage])
                with self.assertRaises(Corrupt):
                    unpacked(compression, [file, garbage])

    def test_streams_laid_end_to_end_are_one_file(self) -> None:
        """Several streams in one file are decoded, also with empty ones between."""
        for compression in REPEATABLE:
            one, empty = packed(compression, NAR), packed(compression, b"")
            file = one + empty + empty + one
            self.assertEqual(unpacked(compression, [file]), NAR * 2, compression)
            self.assertEqual(unpacked(compression, cut(file, 1)), NAR * 2)
            self.assertEqual(unpacked(compression, [one, empty + empty, one]), NAR * 2)

    def test_brotli_ends_where_it_ends(self) -> None:
        """Brotli has no second stream."""
        one = packed("br", NAR)
        for pieces in ([one + one], [one, one], [one, b"", one]):
            with self.assertRaises(Corrupt):
                unpacked("br", pieces)

    def test_many_tiny_streams_are_read_in_reasonable_time(self) -> None:
        """100 kB of empty streams are read."""
        for compression in REPEATABLE:
            empty = packed(compression, b"")
            self.assertEqual(unpacked(compression, [empty * (100_000 // len(empty))]), b"")

    def test_xz_pads_in_fours(self) -> None:
        """Zero bytes between and after streams count in multiples of four."""
        one = packed("xz", NAR)
        for zeros in (4, 8, 100):
            padding = bytes(zeros)
            self.assertEqual(unpacked("xz", [one + padding + one + padding]), NAR * 2)
            self.assertEqual(unpacked("xz", cut(one + padding + one + padding, 3)), NAR * 2)
        for zeros in (1, 2, 3, 6):
            for file in (one + bytes(zeros), one + bytes(zeros) + one, bytes(4) + one):
                with self.assertRaises(Corrupt):
                    unpacked("xz", [file])
                with self.assertRaises(Corrupt):
                    unpacked("xz", cut(file, 1))

    def test_zstd_skips_skippable_frames(self) -> None:
        """Skippable frames are ignored."""
        skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"
        one = packed("zstd", NAR)
        for file in (skippable + one, one + skippable, one + skippable + one):
            self.assertEqual(unpacked("zstd", [file]), NAR * file.count(one))
            self.assertEqual(unpacked("zstd", cut(file, 1)), NAR * file.count(one))

    def test_levels_are_taken(self) -> None:
        """The lowest level and a high one write files that can be decoded."""
        data = NAR * 20
        for compression in COMPRESSIONS:
            for level in (1, 9):
                self.assertEqual(unpacked(compression, [packed(compression, data, level)]), data)

    def test_an_empty_file_is_good_only_uncompressed(self) -> None:
        """An empty file is valid without compression, and Corrupt in each compression."""
        self.assertEqual(unpacked("none", []), b"")
        self.assertEqual(unpacked("none", [b""]), b"")
        for compression in COMPRESSIONS:
            with self.assertRaises(Corrupt):
                unpacked(compression, [b""])

    def test_unknown_compressions_are_refused(self) -> None:
        """An unsupported compression raises Refused."""
        self.assertTrue(codec.is_supported("zstd"))
        for compression in ("lzip", "lrzip", "", "XZ"):
            self.assertFalse(codec.is_supported(compression))
            with self.assertRaises(Refused):
                decoder(compression)
            with self.assertRaises(Refused):
                encoder(compression)


class NoMemoryTests(SynchronousTestCase):
    def test_lack_of_memory_is_no_bad_data(self) -> None:
        """A library's report of a lack of memory raises no Corrupt."""
        for text, expected in (
            (
                "Unable to decompress Zstandard data: Allocation error : not enough memory",
                MemoryError,
            ),
            ("LZ4F_decompress failed with code: ERROR_allocation_failed", MemoryError),
            ("Error -4 while decompressing data", MemoryError),
            ("Error -3 while decompressing data: invalid block type", Corrupt),
        ):
            stream = Mock()
            stream.decompress.side_effect = ValueError(text)
            decoder = StreamDecoder("any", lambda: stream, ValueError)  # noqa: B023
            with self.assertRaises(expected):
                list(decoder.feed(b"data"))


class BoundTests(SynchronousTestCase):
    def test_a_bomb_comes_out_in_bounded_pieces(self) -> None:
        """Megabytes of zeros in a few bytes come out in small pieces, with little memory."""
        size = 16 * 1024 * 1024
        for compression in sorted(CODECS):
            file = packed(compression, bytes(size), 1)
            decode = decoder(compression)
            total = 0
            tracemalloc.start()
            for piece in decode.feed(file):
                self.assertLessEqual(len(piece), 2 * PIECE)
                total += len(piece)
            decode.finish()
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            self.assertEqual(total, size)
            self.assertLess(peak, 16 * PIECE, compression)

    def test_noise_passes_unchanged(self) -> None:
        """Incompressible data, larger than every buffer, come out unchanged."""
        data = random.Random(1).randbytes(700_000)
        for compression in sorted(CODECS):
            file = packed(compression, data, 1)
            for pieces in ([file], cut(file, 65_536)):
                self.assertEqual(unpacked(compression, pieces), data)

    def test_a_window_beyond_the_bound_is_corrupt(self) -> None:
        """A zstd frame that wants a gigabyte of window is refused at its header."""
        header = b"\x28\xb5\x2f\xfd" + bytes([0x00, (30 - 10) << 3])
        raw_block = (1 | 5 << 3).to_bytes(3, "little") + b"hello"
        with self.assertRaises(Corrupt):
            unpacked("zstd", [header + raw_block])
        allowed = b"\x28\xb5\x2f\xfd" + bytes([0x00, (27 - 10) << 3])
        self.assertEqual(unpacked("zstd", [allowed + raw_block]), b"hello")

    def test_a_dictionary_beyond_the_bound_is_corrupt(self) -> None:
        """An .lzma header that wants four gigabytes of memory is refused."""
        file = bytearray(lzma.compress(NAR, lzma.FORMAT_ALONE))
        file[1:5] = b"\0\0\0\xc0"
        with self.assertRaises(Corrupt) as caught:
            unpacked("xz", [bytes(file)])
        self.assertIn("Memory", str(caught.exception))


class IdentityTests(SynchronousTestCase):
    @settings(max_examples=20)
    @given(st.integers(0, 3 * PIECE))
    def test_large_pieces_are_cut(self, size: int) -> None:
        """All bytes come out unchanged, no piece larger than the bound."""
        data = bytes(size)
        for fed in (data, memoryview(data)):
            pieces = list(decoder("none").feed(fed))
            self.assertEqual(b"".join(pieces), data)
            self.assertTrue(all(0 < len(piece) <= PIECE for piece in pieces))
