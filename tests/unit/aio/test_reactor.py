"""The reactor of a process, and the interval after which threads yield to it."""

from __future__ import annotations

import sys

from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.reactor import SWITCH_S, chosen_reactor


class ChosenReactorTests(SynchronousTestCase):
    def test_threads_that_compute_hand_over_soon(self) -> None:
        """Threads that compute yield to the reactor's thread within `SWITCH_S`."""
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        chosen_reactor()
        self.assertAlmostEqual(SWITCH_S, sys.getswitchinterval(), places=6)
        self.assertLessEqual(SWITCH_S, 0.001)
