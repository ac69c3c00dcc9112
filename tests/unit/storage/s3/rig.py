"""A bucket in memory, and stores on it without threads."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.bulkhead import Bulkhead
from ncps.aio.threads import Threads
from ncps.storage.s3.blobs import S3Blobs
from ncps.storage.s3.bucket import Bucket, BucketAccess
from ncps.storage.s3.requests import BucketRequests
from ncps.storage.s3.upload import UploadOptions
from ncps.storage.stores import BlobConfigStore, BlobNarInfoStore, BlobNarStore
from tests.fakes.s3 import FakeS3
from tests.fakes.threads import InlineThreads

PART = 5 * 1024**2


def access(**changes: Any) -> BucketAccess:
    """Return the access to a bucket that does not exist."""
    plain: dict[str, Any] = {
        "bucket": "nix",
        "prefix": "p",
        "connect_timeout_s": 1.0,
        "read_timeout_s": 1.0,
        "attempts": 1,
        "connections": 4,
    }
    return BucketAccess(**(plain | changes))


class BucketCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.threads: Threads = InlineThreads()
        self.slots = Bulkhead(self.clock, "requests", size=4, queue=4, patience_s=10)
        self.line = Bulkhead(self.clock, "uploads", size=1, queue=4, patience_s=10)
        self.connect(FakeS3())
        self.sources = Path(self.mktemp())

    def connect(self, client: FakeS3, **changes: Any) -> None:
        """Use another client, or another access."""
        self.client = client
        self.bucket = Bucket(client, access(**changes))

    def new_blobs(self, **changes: Any) -> S3Blobs:
        """Return the adapter, without threads; `options` and `largest_copy` are for its uploads."""
        requests = BucketRequests(
            bucket=self.bucket, workers=self.threads, slots=self.slots, uploads=self.line
        )
        of_uploads = {
            name: changes.pop(name) for name in ("options", "largest_copy") if name in changes
        }
        uploads = UploadOptions(PART, **of_uploads)
        return S3Blobs(clock=self.clock, requests=requests, uploads=uploads, **changes)

    def nars(self, *, now: Callable[[], float] = time.time, **changes: Any) -> BlobNarStore:
        return BlobNarStore(self.new_blobs(**changes), now=now)

    def narinfos(self) -> BlobNarInfoStore:
        return BlobNarInfoStore(self.new_blobs())

    def config(self) -> BlobConfigStore:
        return BlobConfigStore(self.new_blobs())
