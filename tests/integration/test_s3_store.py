"""The storage ports on a real S3 server."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from attrs import evolve
from twisted.internet import reactor as _reactor
from twisted.trial.unittest import TestCase

from ncps.slots import Slots
from ncps.storage.s3 import Requests, S3ConfigStore, S3NarInfoStore, S3NarStore
from ncps.storage.s3_bucket import Access, Bucket, connect
from ncps.workers import Workers
from tests.contract.config_store import ConfigStoreContract
from tests.contract.nar_store import NarStoreContract
from tests.contract.narinfo_store import NarInfoStoreContract
from tests.contract.running import start
from tests.integration.servers import shared
from tests.integration.servers.radosgw import RadosGW

reactor = cast("Any", _reactor)
THREADS = 8
PART = 5 * 1024**2


def access_to(server: RadosGW, bucket: str, **changes: Any) -> Access:
    """The way to a bucket of the tests' server."""
    plain = Access(
        bucket=bucket,
        endpoint=server.endpoint,
        access_key_id=server.access_key,
        secret_access_key=server.secret_key,
        force_path_style=True,
        prefix="some/where",
        connect_timeout_s=5.0,
        read_timeout_s=20.0,
        attempts=2,
        connections=THREADS,
    )
    return evolve(plain, **changes)


class S3TestCase(TestCase):
    def setUp(self) -> None:
        self.server = self.new_server()
        self.access = access_to(self.server, self.server.new_bucket())
        self.bucket = Bucket(connect(self.access), self.access)
        self.addCleanup(self.bucket.close)
        self.workers = Workers(reactor, "s3", THREADS)
        self.workers.start()
        self.addCleanup(lambda: start(self.workers.stop(30)))
        slots = Slots(reactor, "requests", size=THREADS, queue=1000, patience_s=60)
        self.requests = Requests(bucket=self.bucket, workers=self.workers, slots=slots)
        self.sources = Path(self.mktemp()).absolute()
        self.sources.mkdir(parents=True)

    def new_server(self) -> RadosGW:
        """The server to use."""
        return shared.radosgw()

    def nar_store(self, **changes: Any) -> S3NarStore:
        uploads = Slots(reactor, "uploads", size=4, queue=1000, patience_s=60)
        plain: dict[str, Any] = {
            "requests": self.requests,
            "uploads": uploads,
            "part": PART,
            "options": {},
        }
        return S3NarStore(**(plain | changes))


class S3NarStoreTests(NarStoreContract, S3TestCase):
    store: S3NarStore

    def setUp(self) -> None:
        super().setUp()
        self.store = self.nar_store()


class S3NarInfoStoreTests(NarInfoStoreContract, S3TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.store = S3NarInfoStore(requests=self.requests)


class S3ConfigStoreTests(ConfigStoreContract, S3TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.store = S3ConfigStore(clock=reactor, requests=self.requests)
