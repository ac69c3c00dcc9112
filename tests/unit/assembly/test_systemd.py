"""The messages to systemd, and their intervals."""

from __future__ import annotations

import faulthandler

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.assembly.systemd import LEAST_S, Pulse, Watchdog, reloading, status, stopping


class LinesTests(SynchronousTestCase):
    def test_a_status_is_one_line(self) -> None:
        """No text of an upstream can begin a new line, such as READY=1."""
        self.assertEqual("STATUS=away: x READY=1", status("away: x\nREADY=1\n"))

    def test_times_are_microseconds(self) -> None:
        """Of the monotonic clock for a reload, and from now on for a stop."""
        first, then = (int(reloading()[1].removeprefix("MONOTONIC_USEC=")) for _ in range(2))
        self.assertLessEqual(first, then)
        self.assertEqual(("STOPPING=1", "EXTEND_TIMEOUT_USEC=50500000"), stopping(50.5))


class WatchdogTests(SynchronousTestCase):
    def test_the_environment_describes_it(self) -> None:
        """A variable for another process, or without a number, is ignored."""
        for environ, asked_s in (
            ({}, 0.0),
            ({"WATCHDOG_USEC": "30000000"}, 30.0),
            ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 30.0),
            ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, 0.0),
            ({"WATCHDOG_USEC": "", "WATCHDOG_PID": "7"}, 0.0),
            ({"WATCHDOG_USEC": "-1"}, 0.0),
            ({"WATCHDOG_USEC": "soon"}, 0.0),
        ):
            self.assertEqual(asked_s, Watchdog.of(environ, 7).asked_s, environ)

    def test_a_time_that_is_too_short_is_raised(self) -> None:
        """A healthy process on a busy machine must not end; pulses keep their time."""
        self.addCleanup(faulthandler.disable)
        watchdog = Watchdog(1.0)
        self.assertEqual((f"WATCHDOG_USEC={round(LEAST_S * 1e6)}",), watchdog.prepare())
        self.assertEqual(LEAST_S, watchdog.patience_s)
        self.assertLess(watchdog.pulse_s, 0.5)
        self.assertEqual((), Watchdog(30.0).prepare())
        self.assertEqual((), Watchdog().prepare())
        self.assertGreater(Watchdog(0.001).pulse_s, 0.01)


class PulseTests(SynchronousTestCase):
    def test_the_reactor_gives_it(self) -> None:
        """Immediately, and then at each interval, until it is stopped."""
        clock, beats = Clock(), []
        pulse = Pulse(clock, 10.0, lambda: beats.append(clock.seconds()))
        pulse.start()
        clock.pump([5.0] * 4)
        self.assertEqual([0.0, 10.0, 20.0], beats)
        pulse.stop()
        pulse.stop()
        self.assertEqual([], clock.getDelayedCalls())

    def test_there_is_none_without_a_watchdog(self) -> None:
        """Nothing is sent, and no timer runs."""
        clock = Clock()
        Pulse(clock, 0.0, self.fail).start()
        self.assertEqual([], clock.getDelayedCalls())
