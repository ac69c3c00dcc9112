"""Blobs in a bucket of S3, laid out as `ncps.storage.keys` says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from threading import Event
from typing import Final

from attrs import frozen
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime

from ncps.errors import Conflict, NotFound, StorageFull, Unavailable
from ncps.nix.hashes import Hash
from ncps.ports import Replaced, Spooled
from ncps.storage import keys
from ncps.storage.blobs import Blob, Blobs, Wanted
from ncps.storage.s3.body import Ahead, S3Body
from ncps.storage.s3.bucket import Facts, md5_of
from ncps.storage.s3.copy import copy_blocking
from ncps.storage.s3.election import create
from ncps.storage.s3.opening import Opening
from ncps.storage.s3.requests import BucketRequests
from ncps.storage.s3.upload import Upload, UploadOptions

AHEAD: Final = 64
"""Bodies that may read ahead at the same time; together they need 16 MiB."""


@frozen(kw_only=True)
class Redirect:
    """The rule for objects that clients get directly from the bucket.

    :param min_size: bytes of the smallest such object.
    :param ttl_s: seconds for which the URL is valid.
    """

    min_size: int
    ttl_s: float


class S3Blobs(Blobs):
    """Blobs in a bucket.

    :param clock: for an election.
    :param uploads: options of objects that are adopted, copied and moved.
    :param redirect: None if ncps sends every object itself.
    """

    def __init__(
        self,
        *,
        clock: IReactorTime,
        requests: BucketRequests,
        uploads: UploadOptions,
        redirect: Redirect | None = None,
    ) -> None:
        self._clock = clock
        self._requests = requests
        self._bucket = requests.bucket
        self._uploads = uploads
        self._redirect = redirect
        self._ahead = Ahead(AHEAD)

    async def stat(self, key: str) -> Facts | None:
        return await self._requests.run(self._bucket.stat, key)

    async def open(self, key: str, wanted: Wanted) -> S3Body:
        opening = Opening(self._bucket, key, wanted)
        try:
            source, first = await self._requests.run(opening.run_blocking)
        except CancelledError:
            opening.abandon()
            raise
        return S3Body(source, first=first, workers=self._requests.workers, ahead=self._ahead)

    async def read(self, key: str) -> bytes | None:
        return await self._requests.run(self._bucket.read, key)

    async def write(self, key: str, data: bytes) -> None:
        await self._requests.run(self._bucket.write, key, data)

    async def create(self, key: str, data: bytes) -> bytes:
        return await create(self._clock, self._requests, key, data)

    async def adopt(self, key: str, source: Spooled, aside: str) -> tuple[Blob, bool]:
        given_up = Event()
        try:
            return await self._requests.upload(self._adopt_blocking, key, source, aside, given_up)
        finally:
            given_up.set()  # a cancelled upload ends after its present part

    def _adopt_blocking(
        self, key: str, source: Spooled, aside: str, given_up: Event
    ) -> tuple[Blob, bool]:
        upload = Upload(
            bucket=self._bucket, key=key, source=source, options=self._uploads, given_up=given_up
        )
        made = self._make_blocking(key, source.size, source.sha256, aside, upload.run_blocking)
        source.path.unlink(missing_ok=True)
        return made

    async def put(self, key: str, data: bytes, sha256: Hash, aside: str) -> tuple[Blob, bool]:
        return await self._requests.run(self._put_blocking, key, data, sha256, aside)

    def _put_blocking(self, key: str, data: bytes, sha256: Hash, aside: str) -> tuple[Blob, bool]:
        options = self._uploads.of_nar(sha256)
        send = partial(self._bucket.put, key, data, md5_of(data), options)
        return self._make_blocking(key, len(data), sha256, aside, send)

    def _make_blocking(
        self, key: str, size: int, sha256: Hash, aside: str, send: Callable[[], str]
    ) -> tuple[Blob, bool]:
        """Call `send`, which makes an object and returns its tag; check its size and hash."""
        digest = sha256.digest.hex()
        former = self._bucket.stat(key)
        is_other = former is not None and former.sha256 != digest
        has_replaced = former is not None and is_other and self._keep_aside(former, aside)
        facts = self._written(key, send())
        if (facts.size, facts.sha256) != (size, digest):
            raise Unavailable(f"{self._bucket.name(key)} was replaced just after it was written")
        return facts, has_replaced

    def _written(self, key: str, tag: str) -> Facts:
        """Return an object that was just made. Raises Unavailable if it has another tag.

        :param tag: empty if the server has returned none.
        """
        facts = self._bucket.stat(key)
        if facts is None or tag not in {"", facts.tag}:
            raise Unavailable(f"{self._bucket.name(key)} is missing just after it was written")
        return facts

    def _keep_aside(self, facts: Facts, aside: str) -> bool:
        """Copy an object before it is replaced; return False if that is not possible.

        It is not possible if the object disappears, or if there is no room.
        """
        with suppress(NotFound, Conflict, StorageFull):
            copy_blocking(self._bucket, facts, aside, self._uploads)
            return True
        return False

    async def copy(self, key: str, target: str, *, tag: str) -> Blob:
        return await self._requests.run(self._copy_blocking, key, target, tag)

    def _copy_blocking(self, key: str, target: str, tag: str) -> Blob:
        try:
            copied = copy_blocking(self._bucket, self._same(key, tag), target, self._uploads)
        except Conflict as error:
            raise Replaced(f"{keys.file_name(key)} was replaced in the store") from error
        self._same(key, tag)  # some servers, such as Ceph, ignore the tag in the request
        return self._written(target, copied)

    def _same(self, key: str, tag: str) -> Facts:
        """Return the object. Raises NotFound if it is absent, Replaced if it has another tag."""
        facts = self._bucket.stat(key)
        if facts is None:
            raise NotFound(f"{keys.file_name(key)} is not in the store")
        if facts.tag != tag:
            raise Replaced(f"{keys.file_name(key)} was replaced in the store")
        return facts

    async def move(self, key: str, target: str) -> bool:
        return await self._requests.run(self._move_blocking, key, target)

    def _move_blocking(self, key: str, target: str) -> bool:
        facts = self._bucket.stat(key)
        if facts is None:
            return False
        try:
            copy_blocking(self._bucket, facts, target, self._uploads)
        except NotFound:
            return False
        except Conflict as error:
            raise Unavailable(f"{self._bucket.name(key)} changed while it was moved") from error
        self._bucket.delete(key)
        return True

    async def delete(self, key: str) -> bool:
        return await self._requests.run(self._delete_blocking, key)

    def _delete_blocking(self, key: str) -> bool:
        """Remove an object; look first, because S3's answer does not say whether it existed."""
        if self._bucket.stat(key) is None:
            return False
        self._bucket.delete(key)
        return True

    async def discard(self, key: str) -> None:
        await self._requests.run(self._bucket.delete, key)

    async def walk(self, base: str) -> AsyncIterator[Blob]:
        after = ""
        while True:
            page, after = await self._requests.run(self._bucket.page, f"{base}/", after)
            for blob in page:
                yield blob
            if not after:
                return

    async def location(self, key: str, size: int) -> str | None:
        if self._redirect is None or size < self._redirect.min_size:
            return None
        # In a thread, because signing may need to renew the credentials first.
        return await self._requests.run(self._bucket.address, key, self._redirect.ttl_s)
