"""How much space is left."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Unavailable
from ncps.storage.room import free_bytes


class RoomTests(SynchronousTestCase):
    def test_least_of_all_file_systems_counts(self) -> None:
        """A file that must fit in two places fits where there is less room."""
        here, fixed = Path(tempfile.gettempdir()), Path("/proc")
        self.assertEqual(free_bytes(here, fixed), 0)
        usage = shutil.disk_usage(here)
        self.assertGreater(free_bytes(here), 0)
        self.assertLessEqual(free_bytes(here), usage.total)

    def test_lost_directory_is_no_answer(self) -> None:
        """What cannot be asked is not taken for full."""
        self.assertRaises(Unavailable, free_bytes, Path("/nonexistent/ncps"))
