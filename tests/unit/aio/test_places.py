"""The advice for a directory of a setting that cannot be used."""

from __future__ import annotations

import errno
import os

from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.places import remedy


class RemedyTests(SynchronousTestCase):
    def test_each_problem_has_its_remedy(self) -> None:
        """Each message names the setting, or the user who needs the right."""
        for code, words in (
            (errno.ENOSPC, "make room there, or name another one by the-setting"),
            (errno.EROFS, "mount its file system for writing, or name another one by"),
            (errno.ENOTDIR, "the-setting should name a directory"),
            (errno.EEXIST, "the-setting should name a directory"),
            (errno.EACCES, "a directory that the user root may write to, or name another one by"),
            (errno.ENOENT, "a directory that the user root may write to, or name another one by"),
        ):
            self.patch(os, "geteuid", lambda: 0)
            self.assertIn(words, remedy("the-setting", OSError(code, "x")))
        self.assertIn("name another one by the-setting", remedy("the-setting", None))

    def test_a_user_without_a_name(self) -> None:
        """The message has the number of a user without a name, as in containers."""
        self.patch(os, "geteuid", lambda: 4_000_000_123)
        self.assertIn("the user 4000000123 may", remedy("the-setting", None))
