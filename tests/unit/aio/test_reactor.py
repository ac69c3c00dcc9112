"""The reactor of a process, and how soon threads let it go on."""

from __future__ import annotations

import sys

from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.reactor import SWITCH_S, chosen_reactor


class ChosenReactorTests(SynchronousTestCase):
    def test_threads_that_compute_hand_over_soon(self) -> None:
        """The reactor's thread waits after each of its calls to the kernel while one computes."""
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        chosen_reactor()
        self.assertAlmostEqual(SWITCH_S, sys.getswitchinterval(), places=6)
        self.assertLessEqual(SWITCH_S, 0.001)
