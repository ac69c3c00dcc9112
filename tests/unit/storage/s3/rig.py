"""A bucket in memory, and stores on it without threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.slots import Slots
from ncps.aio.threads import Threads
from ncps.storage.s3.bucket import Access, Bucket
from ncps.storage.s3.requests import Requests
from ncps.storage.s3.stores import S3ConfigStore, S3NarInfoStore, S3NarStore
from tests.fakes.s3 import FakeS3
from tests.fakes.threads import InlineThreads

PART = 5 * 1024**2


def access(**changes: Any) -> Access:
    """A way that leads nowhere."""
    plain: dict[str, Any] = {
        "bucket": "nix",
        "prefix": "p",
        "connect_timeout_s": 1.0,
        "read_timeout_s": 1.0,
        "attempts": 1,
        "connections": 4,
    }
    return Access(**(plain | changes))


class BucketCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.threads: Threads = InlineThreads()
        self.slots = Slots(self.clock, "requests", size=4, queue=4, patience_s=10)
        self.line = Slots(self.clock, "uploads", size=1, queue=4, patience_s=10)
        self.connect(FakeS3())
        self.sources = Path(self.mktemp())

    def connect(self, client: FakeS3, **changes: Any) -> None:
        """Use another client, or another way."""
        self.client = client
        self.bucket = Bucket(client, access(**changes))

    def requests(self) -> Requests:
        return Requests(bucket=self.bucket, workers=self.threads, slots=self.slots)

    def nars(self, **changes: Any) -> S3NarStore:
        plain: dict[str, Any] = {"part": PART, "options": {}, "uploads": self.line}
        return S3NarStore(**({"requests": self.requests()} | plain | changes))

    def narinfos(self) -> S3NarInfoStore:
        return S3NarInfoStore(requests=self.requests())

    def config(self) -> S3ConfigStore:
        return S3ConfigStore(clock=self.clock, requests=self.requests())
