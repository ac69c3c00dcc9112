"""Tests of `ncps.aio.allocator`."""

from __future__ import annotations

import ctypes
import resource

from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.allocator import give_back_blocking, keep_large_blocks, resident_bytes

BLOCK = 1024 * 1024


def _faults_of_allocations(count: int) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        bytearray(BLOCK)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


class AllocatorTests(SynchronousTestCase):
    def test_large_blocks_freed_and_wanted_again_fault_in_no_pages(self) -> None:
        """The second allocation of a large block causes no page faults."""
        if not hasattr(ctypes.CDLL(None), "mallopt"):
            self.assertFalse(keep_large_blocks())
            return
        self.assertTrue(keep_large_blocks())
        _faults_of_allocations(1)
        self.assertLess(_faults_of_allocations(50), 50)

    def test_memory_between_blocks_in_use_is_given_back(self) -> None:
        """The memory of many closed connections is given back while a few live on."""
        before = resident_bytes()
        blocks = [bytes(2000) for _ in range(40_000)]
        used = resident_bytes() - before
        kept = blocks[::100]
        del blocks
        had = hasattr(ctypes.CDLL(None), "malloc_trim")
        self.assertEqual(had, give_back_blocking(0))
        if had:
            self.assertLess(resident_bytes() - before, used // 2)
        self.assertEqual(400, len(kept))

    def test_small_processes_are_left_alone(self) -> None:
        """A small process gives nothing back: the page faults would cost more."""
        self.assertFalse(give_back_blocking(2**60))
