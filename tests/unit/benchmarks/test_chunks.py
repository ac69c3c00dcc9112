"""Tests of bodies in chunks, which one client of the benchmarks counts."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.chunks import Chunks

BODY = b"5\r\nhello\r\nA;name=value\r\n0123456789\r\n0\r\n\r\n"


class ChunksTests(SynchronousTestCase):
    def test_any_pieces(self) -> None:
        """However the body is cut into pieces, its bytes are counted and its end is found."""
        for size in range(1, len(BODY) + 1):
            chunks = Chunks()
            pieces = [BODY[at : at + size] for at in range(0, len(BODY), size)]
            counted = sum(chunks.take(piece) for piece in pieces)
            self.assertEqual((15, True), (counted, chunks.is_whole))

    def test_a_cut_body(self) -> None:
        """Without its last line, a body is not whole."""
        chunks = Chunks()
        chunks.take(BODY[:-2])
        self.assertFalse(chunks.is_whole)
