"""The window of zstd: how far apart repetitions may lie, and what a decoder needs."""

from __future__ import annotations

import random

import zstandard
from twisted.trial.unittest import SynchronousTestCase

from ncps.codec import zstd

MIB = 1 << 20


def encoded(data: bytes, size: int = 0) -> bytes:
    encoder = zstd.encoder(9, threads=1, size=size)
    return encoder.feed(data) + encoder.finish()


def window_of(data: bytes) -> int:
    """Return the bytes of the window that a frame asks for."""
    size: int = zstandard.get_frame_parameters(data).window_size
    return size


class WindowTests(SynchronousTestCase):
    def test_repetition_far_away(self) -> None:
        """If the size is known, bytes that are repeated after 5 MiB cost nothing."""
        noise = random.Random(1).randbytes(5 * MIB)
        data = noise + noise[:MIB]
        self.assertGreater(len(encoded(data)), len(noise) + MIB // 2)
        self.assertLess(len(encoded(data, len(data))), len(noise) + MIB // 2)

    def test_bounds(self) -> None:
        """A small file asks for a small window, and the largest one for 16 MiB."""
        data = random.Random(1).randbytes(300_000)
        for size, expected in ((1, 1 << 17), (MIB, MIB), (MIB + 1, 2 * MIB), (1 << 40, 16 * MIB)):
            self.assertEqual(expected, window_of(encoded(data, size)), size)
