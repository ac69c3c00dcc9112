"""Tests of `ncps.allocator`."""

from __future__ import annotations

import ctypes
import resource

from twisted.trial.unittest import SynchronousTestCase

from ncps.allocator import keep_large_blocks

BLOCK = 1024 * 1024


def _faults_of_allocations(count: int) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        bytearray(BLOCK)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


class AllocatorTests(SynchronousTestCase):
    def test_large_blocks_freed_and_wanted_again_fault_in_no_pages(self) -> None:
        """A chunk of a NAR costs its copy, not a mapping of fresh pages."""
        if not hasattr(ctypes.CDLL(None), "mallopt"):
            self.assertFalse(keep_large_blocks())
            return
        self.assertTrue(keep_large_blocks())
        _faults_of_allocations(1)
        self.assertLess(_faults_of_allocations(50), 50)
