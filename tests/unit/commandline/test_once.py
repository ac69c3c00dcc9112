"""The check of the owner of files."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ncps.commandline.once import check_owner
from ncps.errors import Refused


class OwnerTests(SynchronousTestCase):
    def test_own_files_are_accepted(self) -> None:
        """The user of this process may change them."""
        check_owner(Path("/store"), os.geteuid(), "read the key")

    def test_files_of_another_user_are_refused(self) -> None:
        """The message names the path, the user, and the daemon's work."""
        error = self.assertRaises(Refused, check_owner, Path("/s"), 4_000_000_001, "read the key")
        self.assertEqual(
            "/s belongs to user 4000000001: run the command as that user, or the daemon could not"
            " read the key",
            str(error),
        )
