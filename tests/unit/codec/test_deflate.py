"""The Content-Encoding deflate, in both forms that servers send."""

from __future__ import annotations

import os
import zlib

from twisted.trial.unittest import SynchronousTestCase

from ncps.codec import deflate
from ncps.codec.stream import PIECE
from ncps.errors import Corrupt

DATA = os.urandom(5_000) + bytes(20_000)


def bare(data: bytes) -> bytes:
    """Compress without zlib's head and sum."""
    maker = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return maker.compress(data) + maker.flush()


def decoded(data: bytes, step: int) -> bytes:
    decoder = deflate.decoder()
    pieces = [
        piece
        for start in range(0, len(data), step)
        for piece in decoder.feed(data[start : start + step])
    ]
    decoder.finish()
    return b"".join(pieces)


class DeflateTests(SynchronousTestCase):
    def test_both_forms_in_pieces_of_any_size(self) -> None:
        """The first two bytes decide, also if they come separately."""
        for data in (zlib.compress(DATA), bare(DATA), zlib.compress(DATA, 0), bare(b"")):
            expected = DATA if len(data) > 10 else b""
            for step in (1, 2, 3, 6000):
                self.assertEqual(expected, decoded(data, step))

    def test_a_bomb_comes_out_in_bounded_pieces(self) -> None:
        """A small body that becomes a large one needs no more memory than others."""
        for piece in deflate.decoder().feed(bare(bytes(20_000_000))):
            self.assertLessEqual(len(piece), PIECE)

    def test_invalid_data_is_corrupt(self) -> None:
        """An early end, bytes after the end, a wrong sum, and invalid data raise Corrupt."""
        good = zlib.compress(DATA)
        wrong = (
            b"",
            good[:1],
            good[:-1],
            good + b"x",
            good[:-1] + bytes([good[-1] ^ 1]),
            b"\xff" * 9,
        )
        for data in wrong:
            self.assertRaises(Corrupt, decoded, data, 1000)
