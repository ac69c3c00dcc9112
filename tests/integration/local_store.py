"""A store in a directory of the test, with real threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.trial.unittest import TestCase

from ncps.aio.threads import Workers
from ncps.storage import keys
from ncps.storage.directory import DirectoryBlobs
from ncps.storage.tree import Tree
from tests.contract.running import start

reactor = cast("Any", _reactor)


class LocalTestCase(TestCase):
    def setUp(self) -> None:
        self.root = self.place()
        self.tree = Tree(self.root)
        self.tree.probe()
        self.workers = Workers(reactor, "test", 4)
        self.workers.start()
        self.addCleanup(lambda: start(self.workers.stop(10)))
        self.sources = Path(self.mktemp()).absolute()
        self.sources.mkdir(parents=True)

    def place(self) -> Path:
        """The directories of a store."""
        return Path(self.mktemp()).absolute()

    def blobs(self) -> DirectoryBlobs:
        return DirectoryBlobs(self.tree, self.workers)

    def temps(self) -> list[Path]:
        return list((self.root / keys.TEMPS).iterdir())
