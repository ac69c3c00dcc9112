"""The storage ports on a real S3 server."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast
from urllib.request import Request, urlopen

import botocore.auth
from attrs import evolve
from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError
from twisted.trial.unittest import TestCase

from ncps.aio.bulkhead import Bulkhead
from ncps.aio.threads import Workers
from ncps.errors import Unavailable
from ncps.nix.hashes import Hash
from ncps.ports import Body, Spooled
from ncps.storage import keys
from ncps.storage.s3.blobs import Redirect, S3Blobs
from ncps.storage.s3.bucket import Bucket, BucketAccess, connect, md5_of
from ncps.storage.s3.requests import BucketRequests
from ncps.storage.s3.upload import UploadOptions
from ncps.storage.stores import (
    BlobConfigStore,
    BlobNarInfoStore,
    BlobNarStore,
    BlobRealisationStore,
)
from tests.contract.body import DATA, content
from tests.contract.config_store import ConfigStoreContract
from tests.contract.nar_store import NarStoreContract
from tests.contract.narinfo_store import NarInfoStoreContract
from tests.contract.realisations import RealisationStoreContract
from tests.contract.running import start
from tests.contract.samples import digest_of, key_of, spooled
from tests.integration.own_process import connections_to, memory_used
from tests.integration.processes import together
from tests.integration.servers import shared
from tests.integration.servers.radosgw import RadosGW

reactor = cast("Any", _reactor)
THREADS = 8
PART = 5 * 1024**2


def access_to(server: RadosGW, bucket: str, **changes: Any) -> BucketAccess:
    """Return the access to a bucket of the tests' server."""
    plain = BucketAccess(
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
    """A bucket and the tools of its stores.

    :ivar changes: of the access to it.
    """

    changes: Mapping[str, Any] = MappingProxyType({})

    def setUp(self) -> None:
        self.server = self.new_server()
        self.access = access_to(self.server, self.server.new_bucket(), **self.changes)
        self.bucket = Bucket(connect(self.access), self.access)
        self.addCleanup(self.bucket.close)
        self.workers = Workers(reactor, "s3", THREADS)
        self.workers.start()
        self.addCleanup(lambda: start(self.workers.stop(30)))
        self.sources = Path(self.mktemp()).absolute()
        self.sources.mkdir(parents=True)

    def new_server(self) -> RadosGW:
        """Return the server to use."""
        return shared.radosgw()

    def blobs(self, options: Mapping[str, str] | None = None, **changes: Any) -> S3Blobs:
        requests = BucketRequests(
            bucket=self.bucket,
            workers=self.workers,
            slots=Bulkhead(reactor, "requests", size=THREADS, queue=1000, patience_s=60),
            uploads=Bulkhead(reactor, "uploads", size=4, queue=1000, patience_s=60),
        )
        uploads = UploadOptions(PART, options or {})
        return S3Blobs(clock=reactor, requests=requests, uploads=uploads, **changes)

    def nar_store(self, **changes: Any) -> BlobNarStore:
        return BlobNarStore(self.blobs(**changes))


class S3NarStoreTests(NarStoreContract, S3TestCase):
    store: BlobNarStore
    # A busy radosgw may answer 500 twice to writers of one key.
    changes = MappingProxyType({"attempts": 5})

    def setUp(self) -> None:
        super().setUp()
        self.store = self.nar_store()


class S3NarInfoStoreTests(NarInfoStoreContract, S3TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.store = BlobNarInfoStore(self.blobs())


class S3RealisationStoreTests(RealisationStoreContract, S3TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.store = BlobRealisationStore(self.blobs())


class S3ConfigStoreTests(ConfigStoreContract, S3TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.store = BlobConfigStore(self.blobs())


class TransferTests(S3TestCase):
    """Large objects, slow readers, readers that leave, and servers that go away."""

    def setUp(self) -> None:
        super().setUp()
        self.store = self.nar_store()

    async def test_a_large_object_goes_and_comes_in_parts(self) -> None:
        """Three hundred mebibytes arrive unchanged, with little of them in memory."""
        block = os.urandom(1024 * 1024)
        source = self.sources / "large"
        whole = hashlib.sha256()
        with source.open("wb") as file:
            for number in range(300):
                piece = number.to_bytes(4, "big") + block[4:]
                whole.update(piece)
                file.write(piece)
        size = source.stat().st_size
        digest = Hash("sha256", whole.digest())
        before = memory_used()
        await self.store.publish(key_of(1), Spooled(path=source, size=size, sha256=digest))
        body = await self.store.open(key_of(1), size=size)
        read = hashlib.sha256()
        async for chunk in body:
            read.update(chunk)
        body.close()
        self.assertEqual(read.digest(), whole.digest())
        self.assertLess(memory_used() - before, 64 * 1024**2)
        self.assertEqual(await self.workers.run(self.bucket.uploads, "store/"), [])

    async def test_slow_readers_cost_little_memory(self) -> None:
        """A hundred readers that stop hold a few pieces of a large object."""
        await self.publish(os.urandom(1024 * 1024) * 32)
        before = memory_used()
        bodies = []
        for _ in range(100):
            body = await self.store.open(key_of(1))
            await anext(aiter(body))
            bodies.append(body)
        self.assertLess(memory_used() - before, 150 * 1024**2)
        for body in bodies:
            body.close()

    async def test_a_reader_that_leaves_frees_its_connection(self) -> None:
        """In the middle, under a read, and before the first byte."""
        await self.publish(os.urandom(1024 * 1024) * 32)
        for _ in range(10):
            body = await self.store.open(key_of(1))
            pieces: Any = aiter(body)
            await anext(pieces)
            reading = start(anext(pieces))
            reading.cancel()
            with contextlib.suppress(CancelledError):
                await reading
            body.close()
            opening = start(self.store.open(key_of(1)))
            opening.cancel()
            with contextlib.suppress(CancelledError):
                await opening
        await self.workers.stop(30)
        # Idle connections that can be reused are allowed, but not more than there are threads.
        self.assertLessEqual(connections_to(self.server.port), THREADS)

    async def publish(self, data: bytes) -> None:
        await self.store.publish(key_of(1), spooled(self.sources, data))

    async def test_a_cancelled_publish_is_done_or_not_done(self) -> None:
        """A cancelled publication leaves a complete object or none, and no parts."""
        publishing = start(self.publish(os.urandom(1024 * 1024) * 24))
        publishing.cancel()
        with self.assertRaises(CancelledError):
            await publishing
        await self.workers.stop(30)
        facts = self.bucket.stat(keys.nar_key(key_of(1)))
        self.assertIn(None if facts is None else facts.size, (None, 24 * 1024**2))
        self.assertEqual(self.bucket.uploads("store/"), [])

    async def test_a_redirect_leads_to_the_bytes(self) -> None:
        """The address gives the object, complete and in part, without credentials."""
        await self.publish(DATA)
        store = self.nar_store(redirect=Redirect(min_size=0, ttl_s=60.0))
        url = await store.location(key_of(1), size=len(DATA))
        assert url is not None
        for header, expected in ((None, DATA), ("bytes=5-99", DATA[5:100])):
            request = Request(url, headers={"Range": header} if header else {})
            with await self.workers.run(urlopen, request) as answer:
                self.assertEqual(answer.read(), expected)

    async def test_objects_of_the_go_program_are_read(self) -> None:
        """Its layout is the same in a bucket as in a directory; its key stays in use."""
        name = key_of(1).name
        for key, data in (
            (f"store/nar/{name[0]}/{name[:2]}/{name}.nar.xz", b"some bytes"),
            ("config/cache.key", b"the key"),
        ):
            path = f"/{self.access.bucket}/{self.access.prefix}/{key}"
            self.assertEqual(self.server.request("PUT", path, body=data)[0], 200)
        self.assertEqual([stat.key async for stat in self.store.walk()], [key_of(1, "xz")])
        self.assertEqual(await content(await self.store.open(key_of(1, "xz"))), b"some bytes")
        config = BlobConfigStore(self.blobs())
        self.assertEqual(await config.create("cache.key", b"another"), b"the key")


class AbsenceTests(S3TestCase):
    """An object is not absent unless the server says so."""

    async def assert_unknown(self, **changes: Any) -> str:
        access = evolve(self.access, **changes)
        self.bucket = Bucket(connect(access), access)
        self.addCleanup(self.bucket.close)
        store = self.nar_store()
        source = spooled(self.sources, b"some bytes")
        said = ""
        for verb in (
            store.stat(key_of(1)),
            store.open(key_of(1)),
            store.delete(key_of(1)),
            store.quarantine(key_of(1)),
            store.publish(key_of(1), source),
            BlobNarInfoStore(self.blobs()).get(digest_of(1)),
            BlobConfigStore(self.blobs()).get("cache.key"),
        ):
            try:
                await verb
            except Unavailable as error:
                said = str(error)
            else:
                self.fail("nothing could be known")
        self.assertTrue(source.path.exists())
        with self.assertRaises(Unavailable):
            async for _ in store.walk():
                pass
        return said

    async def test_a_missing_bucket(self) -> None:
        """Nothing in it is absent."""
        self.assertIn("s3-bucket", await self.assert_unknown(bucket="no-such-bucket"))

    async def test_wrong_credentials(self) -> None:
        """With wrong credentials nothing is absent."""
        self.assertIn("secret", await self.assert_unknown(secret_access_key="wrong"))

    async def test_a_clock_that_is_wrong(self) -> None:
        """The server refuses a signature of two hours ahead, and the message says why."""
        signing: Any = botocore.auth
        clock = signing.get_current_datetime

        def late(*args: Any, **kwargs: Any) -> Any:
            return clock(*args, **kwargs) + timedelta(hours=2)

        self.patch(signing, "get_current_datetime", late)
        self.assertIn("clock", await self.assert_unknown())

    async def test_an_upload_that_is_damaged_on_its_way(self) -> None:
        """The server refuses bytes that are not those that were sent."""
        with self.assertRaises(Unavailable) as caught:
            self.bucket.put("x", b"other bytes", md5_of(b"some bytes"), {})
        self.assertIn("damaged", str(caught.exception))
        self.assertIs(self.bucket.stat("x"), None)

    async def test_a_server_that_is_away(self) -> None:
        """If no server answers, nothing is absent."""
        self.assertIn("connect", await self.assert_unknown(endpoint="http://127.0.0.1:9"))


_CREATOR = """
import sys
from attrs import evolve
from ncps.storage.s3.blobs import S3Blobs
from ncps.storage.s3.requests import BucketRequests
from ncps.storage.s3.bucket import Bucket, BucketAccess, connect
from ncps.storage.s3.upload import UploadOptions
from ncps.storage.stores import BlobConfigStore
from ncps.aio.bulkhead import Bulkhead
from ncps.storage import keys
from tests.contract.running import start
from tests.contract.samples import digest_of, key_of, spooled
from tests.integration.own_process import connections_to, memory_used
from tests.integration.processes import together
from tests.fakes.threads import InlineThreads
from twisted.internet.task import Clock
endpoint, access_key, secret_key, name, number = sys.argv[1:]
access = BucketAccess(
    bucket=name, endpoint=endpoint, access_key_id=access_key, secret_access_key=secret_key,
    force_path_style=True, connect_timeout_s=5, read_timeout_s=20, attempts=2, connections=1,
)
slots = Bulkhead(Clock(), "requests", size=1, queue=1, patience_s=1)
bucket = Bucket(connect(access), access)
requests = BucketRequests(bucket=bucket, workers=InlineThreads(), slots=slots, uploads=slots)
uploads = UploadOptions(1)
store = BlobConfigStore(S3Blobs(clock=Clock(), requests=requests, uploads=uploads))
print("ready", flush=True)
sys.stdin.readline()
found = []
start(store.create("cache.key", b"value of " + number.encode())).addBoth(found.append)
print(found[0].decode())
"""


class CreatorTests(S3TestCase):
    async def test_of_many_processes_one_creates(self) -> None:
        """Ten processes that create at the same time all get the same value."""
        bucket = self.server.new_bucket()
        arguments = [
            *(self.server.endpoint, self.server.access_key, self.server.secret_key, bucket)
        ]
        values = await self.workers.run(together, _CREATOR, arguments, 10)
        self.assertEqual(len(set(values)), 1, values)
        self.assertRegex(values[0], r"^value of \d\n$")


class OutageTests(S3TestCase):
    """A server that goes away and comes back, under a reader."""

    def new_server(self) -> RadosGW:
        server = RadosGW()
        self.addCleanup(server.close)
        server.start()
        return server

    async def test_a_body_survives_a_restart_of_the_server(self) -> None:
        """The body asks for the rest again, and the reader notices nothing."""
        store = self.nar_store()
        data = os.urandom(1024 * 1024) * 32
        await store.publish(key_of(1), spooled(self.sources, data))
        body = await store.open(key_of(1))
        pieces = aiter(body)
        read = await anext(pieces)
        await self.workers.run(self.server.crash)
        await self.workers.run(self.server.start)
        async for chunk in pieces:
            read += chunk
        body.close()
        self.assertEqual(read, data)

    async def test_a_server_that_is_frozen_is_given_up_in_time(self) -> None:
        """Callers get errors, and everything works once it answers again."""
        await self.nar_store().publish(key_of(1), spooled(self.sources, DATA))
        self.access = evolve(self.access, read_timeout_s=0.5, attempts=1)
        self.bucket = Bucket(connect(self.access), self.access)
        self.addCleanup(self.bucket.close)
        store = self.nar_store()
        self.server.freeze()
        try:
            with self.assertRaises(Unavailable) as caught:
                await store.open(key_of(1))
        finally:
            self.server.thaw()
        self.assertTrue(caught.exception.timed_out)
        self.assertEqual(await content(await answered(store)), DATA)


async def answered(store: BlobNarStore) -> Body:
    """Open the NAR in a store that waits briefly, until the server is fast enough."""
    while True:
        with contextlib.suppress(Unavailable):
            return await store.open(key_of(1))
