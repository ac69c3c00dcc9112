"""Name servers that do not answer."""

from __future__ import annotations

import time
from functools import partial

from tests.system.stage import Stage


class MuteTests(Stage):
    def test_upstream_that_needs_no_name(self) -> None:
        """ncps asks it without delay while look-ups hang; these do not delay the end either."""
        paths = [self.cache.add() for _ in range(25)]
        daemon = self.make_daemon("http://nas.lan:8501", self.mounted())
        daemon.program = ("-m", "tests.machines.mute")
        daemon.start()
        answers = self.at_once(*[partial(self.narinfo, daemon, path) for path in paths])
        self.assertEqual([200] * 25, [answer.status for answer in answers])
        self.wait_for_log(daemon, "no name server gave the address of nas.lan within 1 s")
        began = time.monotonic()
        daemon.stop()
        self.assertLess(time.monotonic() - began, 15)
