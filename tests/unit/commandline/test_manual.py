from __future__ import annotations

import re
import shutil
import subprocess
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from ncps.commandline.manual import page
from ncps.commandline.words import every_command
from ncps.settings.table import TABLE
from tests.services import require

DEADLINE_S: Final = 60.0


class ManualTests(SynchronousTestCase):
    def ran(self, *command: str) -> str:
        """Give the page to a program; return its output."""
        done = subprocess.run(
            command,
            input=page(),
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        return done.stdout + done.stderr

    def test_the_page_is_right(self) -> None:
        """A reader of manual pages reports no errors."""
        require(shutil.which("mandoc"), "mandoc")
        self.assertEqual("", self.ran("mandoc", "-T", "lint", "-W", "warning"))

    def test_everything_is_there(self) -> None:
        """The page has each command, each of its flags, and each setting with its names."""
        require(shutil.which("mandoc"), "mandoc")
        plain = re.sub(".\b", "", self.ran("mandoc", "-T", "ascii", "-O", "width=1000"))
        for name, command in every_command():
            if not command.children:
                self.assertIn(name, plain)
                for word in command.words:
                    self.assertIn(word.name if word.is_flag else word.metavar, plain)
        for setting in TABLE:
            self.assertIn(f"--{setting.flag}", plain)
            self.assertIn(setting.environment, plain)
