"""Logs, listings and links to debug information in a bucket."""

from __future__ import annotations

from ncps.storage.stores import BlobExtraStore
from tests.contract.extra_store import ExtraStoreContract
from tests.integration.test_s3_store import S3TestCase


class S3ExtraStoreTests(ExtraStoreContract, S3TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.store = BlobExtraStore(self.blobs())
