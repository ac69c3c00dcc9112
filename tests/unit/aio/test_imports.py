from __future__ import annotations

import gc
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.imports import named

MODULE = """
import gc
was_enabled = gc.isenabled()
"""


class NamedTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name) / "imported_late.py"
        self.patch(sys, "path", [directory.name, *sys.path])
        self.addCleanup(sys.modules.pop, "imported_late", None)
        self.addCleanup(gc.enable)

    def test_nothing_is_collected_meanwhile(self) -> None:
        """Collections are off during the import, on after it, and ignore the imported objects."""
        self.path.write_text(MODULE)
        frozen = gc.get_freeze_count()
        self.assertFalse(named("imported_late:was_enabled"))
        self.assertTrue(gc.isenabled())
        self.assertGreater(gc.get_freeze_count(), frozen)
        self.assertNotIn(sys.modules["imported_late"], gc.get_objects())

    def test_an_import_that_fails_leaves_collections_on(self) -> None:
        """The error is that of the import."""
        self.path.write_text("raise OSError('no')")
        self.assertRaises(OSError, named, "imported_late:nothing")
        self.assertTrue(gc.isenabled())
