"""The storage ports on a bucket of S3, laid out as `ncps.storage.keys` says."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from datetime import datetime
from threading import Event
from typing import Final
from uuid import uuid4

from attrs import frozen
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime

from ncps.aio.slots import Slots
from ncps.errors import Conflict, Corrupt, NotFound, StorageFull, Unavailable
from ncps.nix.narurl import NarKey
from ncps.ports import ConfigStore, NarInfoStore, NarStore, Replaced, SetAside, Spooled, Stat
from ncps.storage import keys
from ncps.storage.s3.body import Ahead, Opening, S3Body, S3Source
from ncps.storage.s3.bucket import LARGEST_COPY, Bucket, Facts, Opened
from ncps.storage.s3.copy import copy_blocking
from ncps.storage.s3.election import elect, honours_conditions_blocking
from ncps.storage.s3.errors import OutOfRange
from ncps.storage.s3.requests import Requests, run_in_line
from ncps.storage.s3.upload import Upload

AHEAD: Final = 64
"""Bodies that may read ahead at once: 16 MiB."""
_ATTEMPTS: Final = 5


class S3NarStore(NarStore):
    """NAR files below `store/nar`.

    :param uploads: one slot for each upload that may run.
    :param part: see `Upload`.
    :param options: of each object, as S3 spells them, such as its storage class.
    :param redirect_from: size from which `location` gives one; None: never.
    :param redirect_ttl_s: how long it holds.
    :param now: seconds since the epoch, for the names of what is set aside.
    """

    def __init__(
        self,
        *,
        requests: Requests,
        uploads: Slots,
        part: int,
        options: Mapping[str, str],
        redirect_from: int | None = None,
        redirect_ttl_s: float = 0.0,
        largest_copy: int = LARGEST_COPY,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._requests = requests
        self._bucket = requests.bucket
        self._uploads = uploads
        self._part = part
        self._options = {"ContentType": "application/x-nix-nar", **options}
        self._redirect_from = redirect_from
        self._redirect_ttl_s = redirect_ttl_s
        self._largest_copy = largest_copy
        self._now = now
        self._ahead = Ahead(AHEAD)
        self._replaced: Callable[[], object] = lambda: None

    async def stat(self, key: NarKey) -> Stat | None:
        facts = await self._requests.run(self._bucket.stat, keys.nar_key(key))
        return None if facts is None else _stat(key, facts)

    async def open(
        self,
        key: NarKey,
        start: int = 0,
        stop: int | None = None,
        *,
        size: int | None = None,
        tag: str | None = None,
    ) -> S3Body:
        opening = Opening()
        wanted = _Wanted(key, start, stop, size, tag)
        try:
            source, first = await self._requests.run(self._open_blocking, opening, wanted)
        except CancelledError:
            opening.abandon()
            raise
        return S3Body(source, first=first, workers=self._requests.workers, ahead=self._ahead)

    def _open_blocking(self, opening: Opening, wanted: _Wanted) -> tuple[S3Source, bytes]:
        """Open and read a first piece: for most NARs that is all of it, in one hop."""
        where, start, stop = keys.nar_key(wanted.key), wanted.start, wanted.stop
        try:
            # An empty range cannot be asked for; its neighbour tells as much.
            opened = self._bucket.open(where, *(start, stop) if stop != start else (0, 1))
        except OutOfRange:
            wanted.check(self._facts(wanted.key))
            opened = self._bucket.open(where)
        try:
            end = wanted.check(opened.facts)
        except Corrupt:
            opened.stream.close()
            raise
        actual, etag = opened.facts.size, opened.facts.etag
        source = S3Source(
            opened,
            name=self._bucket.name(where),
            start=start,
            stop=end,
            reopen=lambda position: self._reopen(where, position, end, etag, actual),
        )
        if start == end:
            source.close()
        try:
            first = source.read_blocking()
        except BaseException:
            source.close()
            raise
        opening.done_blocking(source)
        return source, first

    def _facts(self, key: NarKey) -> Facts:
        facts = self._bucket.stat(keys.nar_key(key))
        if facts is None:
            raise NotFound(f"{key.file_name} is not in the store")
        return facts

    def _reopen(self, where: str, position: int, stop: int, etag: str, size: int) -> Opened:
        opened = self._bucket.open(where, position, stop, etag=etag)
        if opened.facts.size != size:
            opened.stream.close()
            raise Conflict(f"{self._bucket.name(where)} has changed")
        return opened

    async def publish(self, key: NarKey, source: Spooled) -> Stat:
        given_up = Event()
        try:
            facts, has_replaced = await run_in_line(
                self._uploads, self._requests.workers, self._publish_blocking, key, source, given_up
            )
        finally:
            given_up.set()  # a cancelled upload ends after the part that it is sending
        if has_replaced:
            self._replaced()
        return _stat(key, facts)

    def watch(self, replaced: Callable[[], object]) -> None:
        self._replaced = replaced

    def _publish_blocking(
        self, key: NarKey, source: Spooled, given_up: Event
    ) -> tuple[Facts, bool]:
        """Return facts of the object, and whether another one was set aside for it."""
        where = keys.nar_key(key)
        former = self._bucket.stat(where)
        upload = Upload(
            bucket=self._bucket,
            key=where,
            source=source,
            part=self._part,
            options={**self._options, "Metadata": {"sha256": source.sha256.digest.hex()}},
            given_up=given_up,
        )
        is_other = former is not None and former.sha256 != source.sha256.digest.hex()
        has_replaced = former is not None and is_other and self._keep_aside(key, former)
        tag = upload.run_blocking()
        facts = self._written(where, tag)
        if (facts.size, facts.sha256) != (source.size, source.sha256.digest.hex()):
            raise Unavailable(f"{self._bucket.name(where)} was replaced just after it was written")
        source.path.unlink(missing_ok=True)
        return facts, has_replaced

    def _written(self, where: str, tag: str) -> Facts:
        """Facts of an object that was just made, with this tag, if the server told one."""
        facts = self._bucket.stat(where)
        if facts is None or tag not in {"", facts.etag}:
            raise Unavailable(f"{self._bucket.name(where)} is not there just after it was written")
        return facts

    def _keep_aside(self, key: NarKey, facts: Facts) -> bool:
        """Copy an object that is going to be replaced, if there is room for that.

        One that goes meanwhile is no loss.
        """
        with suppress(NotFound, Conflict, StorageFull):
            self._copy(keys.nar_key(key), self._aside(key), facts)
            return True
        return False

    def _copy(self, where: str, target: str, facts: Facts) -> str:
        return copy_blocking(self._bucket, where, target, facts, self._options, self._largest_copy)

    async def copy(self, key: NarKey, target: NarKey, *, tag: str) -> Stat:
        return await self._requests.run(self._copy_blocking, key, target, tag)

    def _copy_blocking(self, key: NarKey, target: NarKey, tag: str) -> Stat:
        where = keys.nar_key(target)
        try:
            copied = self._copy(keys.nar_key(key), where, self._same(key, tag))
        except Conflict as error:
            raise Replaced(f"{key.file_name} was replaced in the store") from error
        self._same(key, tag)  # some servers, Ceph among them, copy whatever is there
        return _stat(target, self._written(where, copied))

    def _same(self, key: NarKey, tag: str) -> Facts:
        facts = self._facts(key)
        if facts.etag != tag:
            raise Replaced(f"{key.file_name} was replaced in the store")
        return facts

    async def delete(self, key: NarKey) -> bool:
        return await self._requests.run(_delete_blocking, self._bucket, keys.nar_key(key))

    async def quarantine(self, key: NarKey) -> bool:
        return await self._requests.run(self._move_blocking, keys.nar_key(key), self._aside(key))

    def _aside(self, key: NarKey) -> str:
        return keys.quarantine_key(key, keys.new_mark(self._now()))

    def _move_blocking(self, where: str, target: str) -> bool:
        facts = self._bucket.stat(where)
        if facts is None:
            return False
        try:
            self._copy(where, target, facts)
        except NotFound:
            return False
        except Conflict as error:
            raise Unavailable(f"{self._bucket.name(where)} has changed meanwhile") from error
        self._bucket.delete(where)
        return True

    async def walk_quarantine(self) -> AsyncIterator[SetAside]:
        async for item in self._requests.walk(keys.QUARANTINE):
            found = keys.set_aside_of(item.key)
            if found is not None:
                key, mark, since = found
                yield SetAside(key=key, mark=mark, size=item.size, since=since)

    async def discard(self, aside: SetAside) -> None:
        where = keys.quarantine_key(aside.key, aside.mark)
        await self._requests.run(self._bucket.delete, where)

    async def walk(self) -> AsyncIterator[Stat]:
        async for item in self._requests.walk(keys.NARS):
            key = keys.nar_of(item.key)
            if key is not None:
                yield Stat(key=key, size=item.size, modified=item.modified, tag=item.etag)

    async def location(self, key: NarKey, *, size: int) -> str | None:
        if self._redirect_from is None or size < self._redirect_from:
            return None
        # In a thread, since signing may have to renew the credentials first.
        return await self._requests.run(
            self._bucket.address, keys.nar_key(key), self._redirect_ttl_s
        )


@frozen
class _Wanted:
    """What was asked for; see `NarStore.open`."""

    key: NarKey
    start: int
    stop: int | None
    size: int | None
    tag: str | None

    def check(self, facts: Facts) -> int:
        """Return where the bytes end. Corrupt, of which Replaced, if this is not the object."""
        actual = facts.size
        end = actual if self.stop is None else self.stop
        if self.size not in {None, actual} or not 0 <= self.start <= end <= actual:
            what = f"bytes {self.start} to {end}" if self.size is None else f"{self.size} bytes"
            raise Corrupt(f"{self.key.file_name} has {actual} bytes in the store, wanted: {what}")
        if self.tag not in {None, facts.etag}:
            raise Replaced(f"{self.key.file_name} was replaced in the store")
        return end


def _stat(key: NarKey, facts: Facts) -> Stat:
    return Stat(key=key, size=facts.size, modified=facts.modified, tag=facts.etag)


def _delete_blocking(bucket: Bucket, key: str) -> bool:
    """Delete, and say whether something was there, which S3 itself does not."""
    if bucket.stat(key) is None:
        return False
    bucket.delete(key)
    return True


class S3NarInfoStore(NarInfoStore):
    """Texts below `store/narinfo`."""

    def __init__(self, *, requests: Requests) -> None:
        self._requests = requests
        self._bucket = requests.bucket

    async def put(self, digest: str, text: bytes) -> None:
        await self._requests.run(self._bucket.write, keys.narinfo_key(digest), text)

    async def get(self, digest: str) -> bytes | None:
        return await self._requests.run(self._bucket.read, keys.narinfo_key(digest))

    async def delete(self, digest: str) -> bool:
        return await self._requests.run(_delete_blocking, self._bucket, keys.narinfo_key(digest))

    async def written(self, digest: str) -> datetime | None:
        facts = await self._requests.run(self._bucket.stat, keys.narinfo_key(digest))
        return None if facts is None else facts.modified

    async def walk(self) -> AsyncIterator[str]:
        async for item in self._requests.walk(keys.NARINFOS):
            digest = keys.digest_of(item.key)
            if digest is not None:
                yield digest


class S3ConfigStore(ConfigStore):
    """Small objects below `config`, created by conditional writing or else by election."""

    def __init__(self, *, clock: IReactorTime, requests: Requests) -> None:
        self._clock = clock
        self._requests = requests
        self._bucket = requests.bucket

    async def get(self, name: str) -> bytes | None:
        return await self._requests.run(self._bucket.read, keys.config_key(name))

    async def create(self, name: str, value: bytes) -> bytes:
        key = keys.config_key(name)
        created = await self._requests.run(self._create_blocking, key, value)
        if created is not None:
            return created
        return await elect(self._clock, self._requests.run, self._bucket, key, value)

    async def replace(self, name: str, value: bytes) -> None:
        await self._requests.run(self._bucket.write, keys.config_key(name), value)

    def _create_blocking(self, key: str, value: bytes) -> bytes | None:
        """Write on condition that nothing is there, else read what is; None: the server cannot.

        A server may answer that two have tried at once and neither succeeded: then try again.
        """
        existing = self._bucket.read(key)
        if existing is not None:
            return existing
        if not honours_conditions_blocking(self._bucket, keys.probe_key(uuid4().hex)):
            return None
        for _ in range(_ATTEMPTS):
            try:
                self._bucket.write(key, value, create=True)
            except Conflict:
                winner = self._bucket.read(key)
                if winner is not None:
                    return winner
            else:
                return value
        raise Unavailable(f"{self._bucket.name(key)} cannot be created: others try all the time")
