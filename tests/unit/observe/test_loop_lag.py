"""The reactor's lag, measured with a clock that is late on purpose."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.observe.loop_lag import LoopLag


class LoopLagTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.lags: list[float] = []
        self.lag = LoopLag(self.clock, self.lags.append, interval=1.0)

    def test_punctual_reactor_has_no_lag(self) -> None:
        """Without blocking calls there is no lag."""
        self.lag.start()
        self.clock.pump([1.0] * 3)
        self.assertEqual(self.lags, [0.0] * 3)

    def test_blocked_reactor_lags(self) -> None:
        """A block of two seconds is counted once."""
        self.lag.start()
        self.clock.pump([1.0, 3.0, 1.0])
        self.assertEqual(self.lags, [0.0, 2.0, 0.0])

    def test_stopped_looks_no_more(self) -> None:
        """A stopped service has no timer."""
        self.lag.start()
        self.lag.stop()
        self.lag.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(5)
        self.assertEqual(self.lags, [])
