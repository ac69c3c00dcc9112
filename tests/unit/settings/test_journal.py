from __future__ import annotations

import io
import os
from pathlib import Path

from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from ncps.settings.journal import is_journal, marked


class JournalTests(SynchronousTestCase):
    def setUp(self) -> None:
        path = Path(self.mktemp())
        self.stream = path.open("w")
        self.addCleanup(self.stream.close)
        facts = os.fstat(self.stream.fileno())
        self.own = f"{facts.st_dev}:{facts.st_ino}"

    def test_the_journal_is_told_by_device_and_inode(self) -> None:
        """A variable that names another file was inherited, and does not count."""
        self.assertTrue(is_journal(self.stream, {"JOURNAL_STREAM": self.own}))
        for text in ("", ":", "1:2", self.own.partition(":")[0], f"{self.own}:1", "a:b"):
            self.assertFalse(is_journal(self.stream, {"JOURNAL_STREAM": text}), text)
        self.assertFalse(is_journal(self.stream, {}))

    def test_a_stream_without_a_descriptor_is_no_journal(self) -> None:
        """A missing stream, one in memory, and a closed one are not the journal."""
        self.stream.close()
        for stream in (None, io.StringIO(), self.stream):
            self.assertFalse(is_journal(stream, {"JOURNAL_STREAM": self.own}))

    def test_each_line_has_its_level(self) -> None:
        """Lines of a traceback, too, which would otherwise be of level info."""
        self.assertEqual("<3>it broke\n<3>  at x", marked("it broke\n  at x", LogLevel.error))
        self.assertEqual("<6>a\n<6>b\n", marked("a\nb\n", LogLevel.info))
        levels = [LogLevel.debug, LogLevel.warn, LogLevel.critical, None]
        self.assertEqual(["<7>a", "<4>a", "<2>a", "<6>a"], [marked("a", it) for it in levels])
