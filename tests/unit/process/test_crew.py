"""The supervisor's own part: what it tells workers, and what it makes of their ends."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ncps.cli import WORKER
from ncps.errors import NcpsError
from ncps.process import crew
from ncps.process.crew import _environment, _how, _Line
from ncps.process.worker import LONGEST_REPORT, REPORTS, report_failure
from tests.unit.process.test_worker import PLAN
from tests.unit.settings.around import load_with


class Life:
    """Notes what is told of a worker."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def ready(self) -> None:
        self.told.append("ready")

    def ended(self, how: str, why: str = "") -> None:
        self.told.append(f"{how}: {why}" if why else how)


class LineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.life = Life()
        self.line = _Line(self.life)

    def test_readiness_is_heard_in_pieces(self) -> None:
        """A report may come in any number of parts; other reports and descriptors are none."""
        for part in (b"STATUS=x\nREA", b"DY=", b"1"):
            self.line.childDataReceived(REPORTS, part)
        self.line.childDataReceived(REPORTS + 1, b"READY=1\n")
        self.assertEqual([], self.life.told)
        self.line.childDataReceived(REPORTS, b"\nSTOPPING=1\n")
        self.assertEqual(["ready"], self.life.told)

    def test_chatter_is_bounded(self) -> None:
        """A worker that only talks costs no memory."""
        for _ in range(100):
            self.line.childDataReceived(REPORTS + 1, b"x" * 1000)
        self.assertEqual(0, len(self.line._said))
        for _ in range(100):
            self.line.childDataReceived(REPORTS, b"x" * 1000)
        self.assertLessEqual(len(self.line._said), LONGEST_REPORT)

    def test_a_worker_says_why_it_cannot_start(self) -> None:
        """In one line, which may be long and come in pieces."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        with mock.patch("ncps.process.worker.REPORTS", writing):
            report_failure(NcpsError("no key:\nmake one" + " é" * LONGEST_REPORT))
        os.close(writing)
        said = os.read(reading, 10 * LONGEST_REPORT)
        self.assertLessEqual(len(said), LONGEST_REPORT)
        for part in (said[:20], said[20:]):
            self.line.childDataReceived(REPORTS, part)
        self.line.processEnded(Failure(ProcessTerminated(exitCode=1)))
        (told,) = self.life.told
        self.assertTrue(told.startswith("exit code 1: no key: make one é é"), told)

    def test_ends_are_told_apart(self) -> None:
        """An exit code, a signal, or whatever else it was."""
        for reason, how in (
            (ProcessDone(None), "exit code 0"),
            (ProcessTerminated(exitCode=7), "exit code 7"),
            (ProcessTerminated(signal=9), "signal 9"),
            (ValueError("odd"), "odd"),
        ):
            self.assertEqual(how, _how(reason))
        self.line.processEnded(Failure(ProcessTerminated(signal=9)))
        self.assertEqual(["signal 9"], self.life.told)


class ServeTests(SynchronousTestCase):
    def test_workers_have_no_word_with_systemd(self) -> None:
        """Neither its notifications nor its sockets are for them; everything else is."""
        environ = {"NOTIFY_SOCKET": "/x", "LISTEN_FDS": "1", "WATCHDOG_USEC": "1", "HOME": "/"}
        found = _environment(environ, PLAN)
        self.assertEqual({"HOME": "/", WORKER: PLAN.render()}, found)

    def test_settings_lie_in_no_file(self) -> None:
        """What workers read has a secret for them to know each other by, and no name."""
        fd = crew._written(load_with({"workers": "2"}))
        self.addCleanup(os.close, fd)
        self.assertIn("memfd:", str(Path(f"/proc/self/fd/{fd}").readlink()))
        self.assertGreater(os.fstat(fd).st_size, 100)
