"""A directory for the stores of one test."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ncps.storage import keys
from ncps.storage.directory import DirectoryBlobs
from ncps.storage.tree import Tree
from tests.fakes.workers import FakeWorkers


class LocalTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.tree = Tree(self.root)
        self.tree.probe()
        self.workers = FakeWorkers()

    def new_blobs(self) -> DirectoryBlobs:
        return DirectoryBlobs(self.tree, self.workers)

    def temps(self) -> list[Path]:
        return list((self.root / keys.TEMPS).iterdir())

    def tearDown(self) -> None:
        """No test leaves an unfinished file."""
        self.assertEqual(self.temps(), [])
