"""The supervisor's process: its messages to workers, and its handling of their ends."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import cast
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.waiting import Future
from ncps.cli import WORKER
from ncps.errors import NcpsError
from ncps.process import crew
from ncps.process.crew import _how, _Line, _NurseryEnd
from ncps.process.nursery import Nursery, worker_environment
from ncps.process.worker import LONGEST_REPORT, REPORTS, report_failure
from ncps.settings.carried import pack
from tests.unit.process.test_worker import PLAN
from tests.unit.settings.around import load_with


class Life:
    """A recorder of the reports about a worker."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def ready(self) -> None:
        self.told.append("ready")

    def took(self, lines: Sequence[str]) -> None:
        self.told.append(f"took: {', '.join(lines)}")

    def pulse(self) -> None:
        self.told.append("pulse")

    def ended(self, how: str, why: str = "") -> None:
        self.told.append(f"{how}: {why}" if why else how)


class TakeTests(SynchronousTestCase):
    def test_workers_that_hang_share_one_deadline(self) -> None:
        """All workers that hang share one deadline of a reload."""
        clock = Clock()
        made = crew.Crew(load_with(), clock, mock.Mock(), Nursery())
        made._files = [-1, os.open(os.devnull, os.O_RDONLY)]
        given: dict[int, Future[Sequence[str]]] = {1: Future(), 2: Future(), 3: Future()}
        given[2].succeed(["changed"])
        self.patch(made._supervisor, "give", lambda settings: given)
        taking = Deferred.fromCoroutine(made._take(load_with()))
        self.addCleanup(os.close, made._files[1])
        clock.pump([crew.TAKE_S, 0.0, 0.0])
        lines = self.successResultOf(taking)
        self.assertEqual(3, len(lines))
        self.assertIn("changed", lines)


class LineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.life = Life()
        self.gone: list[list[str]] = []
        self.line = _Line(self.life, lambda: self.gone.append(list(self.life.told)))

    def test_readiness_is_read_in_pieces(self) -> None:
        """A report may come in parts; other reports and descriptors do not count."""
        for part in (b"STATUS=x\nREA", b"DY=", b"1"):
            self.line.childDataReceived(REPORTS, part)
        self.line.childDataReceived(REPORTS + 1, b"READY=1\n")
        self.assertEqual([], self.life.told)
        self.line.childDataReceived(REPORTS, b"\nWATCHDOG=1\nSTOPPING=1\n")
        self.assertEqual(["ready", "pulse"], self.life.told)

    def test_changes_come_before_the_end_of_a_reload(self) -> None:
        """The lines of one reload are not those of the next."""
        self.line.childDataReceived(REPORTS, b"CHANGED=a: 1\nCHANGED=b\nTOOK=1\nTOOK=1\n")
        self.assertEqual(["took: a: 1, b", "took: "], self.life.told)

    def test_chatter_is_bounded(self) -> None:
        """The memory for the output of a worker has a limit."""
        for _ in range(100):
            self.line.childDataReceived(REPORTS + 1, b"x" * 1000)
        self.assertEqual(0, len(self.line._said))
        for _ in range(100):
            self.line.childDataReceived(REPORTS, b"x" * 1000)
        self.assertLessEqual(len(self.line._said), LONGEST_REPORT)

    def test_a_worker_reports_why_it_cannot_start(self) -> None:
        """The reason comes in one line, which may be long and come in parts."""
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

    def test_kinds_of_ends_are_distinguished(self) -> None:
        """The text names an exit code, a signal, or another reason."""
        for reason, how in (
            (ProcessDone(None), "exit code 0"),
            (ProcessTerminated(exitCode=7), "exit code 7"),
            (ProcessTerminated(signal=9), "signal 9"),
            (ValueError("odd"), "odd"),
        ):
            self.assertEqual(how, _how(reason))
        self.line.processEnded(Failure(ProcessTerminated(signal=9)))
        self.assertEqual(["signal 9"], self.life.told)
        self.assertEqual([[]], self.gone)  # first, so that no other worker waits for it


class ServeTests(SynchronousTestCase):
    def test_workers_cannot_notify_systemd(self) -> None:
        """Workers get neither the notification socket nor the sockets of systemd."""
        environ = {"NOTIFY_SOCKET": "/x", "LISTEN_FDS": "1", "WATCHDOG_USEC": "1", "HOME": "/"}
        found = worker_environment(environ, PLAN.render())
        self.assertEqual({"HOME": "/", WORKER: PLAN.render()}, found)

    def test_settings_are_in_no_file(self) -> None:
        """The settings for workers are in memory, because they contain a secret."""
        fd = crew._written(pack(load_with({"workers": "2"})))
        self.addCleanup(os.close, fd)
        self.assertIn("memfd:", str(Path(f"/proc/self/fd/{fd}").readlink()))
        self.assertGreater(os.fstat(fd).st_size, 100)


class NurseryTests(SynchronousTestCase):
    """The supervisor's warnings about the end of the nursery."""

    def told_of(self, nursery: Nursery) -> list[str]:
        """Return the warnings about the end of a nursery."""
        events: list[LogEvent] = []
        globalLogPublisher.addObserver(cast("ILogObserver", events.append))
        self.addCleanup(globalLogPublisher.removeObserver, cast("ILogObserver", events.append))
        _NurseryEnd(nursery).processEnded(Failure(ProcessTerminated(signal=9)))
        return [formatEvent(event) for event in events]

    def test_an_unexpected_end_is_logged(self) -> None:
        """An unexpected end is logged, with its consequence."""
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        nursery = Nursery(ours, 1)
        (said,) = self.told_of(nursery)
        self.assertIn("ended with signal 9: new workers take more time and memory", said)
        self.assertFalse(nursery.is_open)

    def test_the_end_of_a_closed_nursery_is_not_logged(self) -> None:
        """The end of a closed nursery is not logged."""
        self.assertEqual([], self.told_of(Nursery()))
