"""The runner of all suites: each fault of a suite is a failure, and no suite hangs."""

from __future__ import annotations

import os
import signal
from contextlib import redirect_stdout
from io import StringIO

from twisted.trial.unittest import SynchronousTestCase

from tests import __main__ as runner
from tests.__main__ import Outcome, read_summary

HANGS = "import time; time.sleep(600)"
LEAVES_ONE = """
import os, sys
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
print(os.posix_spawn(sleep[0], sleep, os.environ, setsid=True))
"""


class SummaryTests(SynchronousTestCase):
    def test_all_but_success_is_a_failure(self) -> None:
        """A suite has failed without a summary, and with a bad exit code after a good summary."""
        self.assertEqual(Outcome(failed=1), read_summary(["Ran 3 tests"], 0))
        self.assertEqual(Outcome(failed=1), read_summary([], -9))
        self.assertEqual(Outcome(3, 1), read_summary(["PASSED (successes=3)"], -9))
        self.assertEqual(
            Outcome(3, 2, 1),
            read_summary(["FAILED (skips=1, failures=1, errors=1, successes=3)"], 1),
        )


class CommandTests(SynchronousTestCase):
    def run_command(self, text: str) -> tuple[int, list[str], str]:
        """Run Python text; return its exit code, its lines, and the printed text."""
        out = StringIO()
        with redirect_stdout(out):
            code, lines = runner.run(["-c", text])
        return code, lines, out.getvalue()

    def test_one_that_ends(self) -> None:
        """The runner returns the lines and the exit code."""
        code, lines, shown = self.run_command("print('one'); print('two'); raise SystemExit(3)")
        self.assertEqual((3, ["one\n", "two\n"]), (code, lines))
        self.assertIn("one\ntwo\n", shown)

    def test_one_that_hangs_is_killed(self) -> None:
        """Its exit code is that of SIGKILL, which is a failure."""
        self.patch(runner, "DEADLINE", 1.0)
        code, _, shown = self.run_command(HANGS)
        self.assertEqual(-signal.SIGKILL, code)
        self.assertIn("killed: not done within 1 s", shown)

    def test_one_that_leaves_a_process_has_failed(self) -> None:
        """Such a process may keep the output open for ever, in a session of its own."""
        self.patch(runner, "LAST_WORDS", 0.5)
        code, (pid,), shown = self.run_command(LEAVES_ONE)
        os.kill(int(pid), signal.SIGKILL)
        self.assertEqual(1, code)
        self.assertIn("has not ended with it", shown)
