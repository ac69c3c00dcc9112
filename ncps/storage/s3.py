"""The storage ports on a bucket of S3, laid out as `ncps.storage.keys` says.

Every request runs in a thread of the bucket's own pool. Requests stand in a bounded line for the
threads, uploads in one of their own, so that a burst of either leaves threads to the other. Bodies
need no line: each reads one piece at a time, and who may have a body was decided before.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from threading import Event
from typing import Final, ParamSpec, TypeVar
from uuid import uuid4

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ncps.errors import Conflict, Corrupt, NotFound, Unavailable
from ncps.nix.narurl import NarKey
from ncps.ports import ConfigStore, NarInfoStore, NarStore, SetAside, Spooled, Stat
from ncps.slots import Slots
from ncps.storage import keys
from ncps.storage.s3_body import Ahead, Opening, S3Body, S3Source
from ncps.storage.s3_bucket import LARGEST_COPY, Bucket, Facts, Listed, Opened
from ncps.storage.s3_copy import copy_blocking
from ncps.storage.s3_election import elect, honours_conditions_blocking
from ncps.storage.s3_errors import OutOfRange
from ncps.storage.s3_upload import Upload
from ncps.workers import Threads

P = ParamSpec("P")
R = TypeVar("R")

AHEAD: Final = 64
"""Bodies that may read ahead at once: 16 MiB."""
_ATTEMPTS: Final = 5


async def run_in_line(
    slots: Slots, workers: Threads, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
) -> R:
    """Take a slot, call in a thread, return its result. Busy: the line is too long.

    The slot is the call's, not the caller's: who leaves does not make room while a thread is busy
    for nobody. Else a crowd that comes and goes would fill the threads without bound.
    """
    await slots.acquire()
    result: Deferred[R] = Deferred()

    def ended(value: R | Failure) -> None:
        slots.release()
        if not isinstance(value, Failure):
            result.callback(value)
        elif not result.called:
            result.errback(value)

    Deferred.fromCoroutine(workers.run(function, *args, **kwargs)).addBoth(ended)
    return await result


class Requests:
    """The way to a bucket: the line, and the threads at its end.

    :param slots: one for each request that may run or wait for a thread.
    """

    def __init__(self, *, bucket: Bucket, workers: Threads, slots: Slots) -> None:
        self.bucket = bucket
        self.workers = workers
        self._slots = slots

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call what asks the bucket, in a thread. Busy: the line is too long."""
        return await run_in_line(self._slots, self.workers, function, *args, **kwargs)

    async def walk(self, base: str) -> AsyncIterator[Listed]:
        """Objects below a key, one hop for each page."""
        after = ""
        while True:
            page, after = await self.run(self.bucket.page, f"{base}/", after)
            for item in page:
                yield item
            if not after:
                return


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

    async def stat(self, key: NarKey) -> Stat | None:
        facts = await self._requests.run(self._bucket.stat, keys.nar_key(key))
        return None if facts is None else _stat(key, facts)

    async def open(
        self, key: NarKey, start: int = 0, stop: int | None = None, *, size: int | None = None
    ) -> S3Body:
        opening = Opening()
        try:
            source, first = await self._requests.run(
                self._open_blocking, opening, key, start, stop, size
            )
        except CancelledError:
            opening.abandon()
            raise
        return S3Body(source, first=first, workers=self._requests.workers, ahead=self._ahead)

    def _open_blocking(
        self, opening: Opening, key: NarKey, start: int, stop: int | None, size: int | None
    ) -> tuple[S3Source, bytes]:
        """Open and read a first piece: for most NARs that is all of it, in one hop."""
        where = keys.nar_key(key)
        try:
            # An empty range cannot be asked for; its neighbour tells as much.
            opened = self._bucket.open(where, *(start, stop) if stop != start else (0, 1))
        except OutOfRange:
            actual = self._size(key)
            _check(key, start, stop, size, actual)
            opened = self._bucket.open(where)
        try:
            actual = opened.facts.size
            end = _check(key, start, stop, size, actual)
        except Corrupt:
            opened.stream.close()
            raise
        etag = opened.facts.etag
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

    def _size(self, key: NarKey) -> int:
        facts = self._bucket.stat(keys.nar_key(key))
        if facts is None:
            raise NotFound(f"{key.file_name} is not in the store")
        return facts.size

    def _reopen(self, where: str, position: int, stop: int, etag: str, size: int) -> Opened:
        opened = self._bucket.open(where, position, stop, etag=etag)
        if opened.facts.size != size:
            opened.stream.close()
            raise Conflict(f"{self._bucket.name(where)} has changed")
        return opened

    async def publish(self, key: NarKey, source: Spooled) -> Stat:
        given_up = Event()
        try:
            facts = await run_in_line(
                self._uploads, self._requests.workers, self._publish_blocking, key, source, given_up
            )
        finally:
            given_up.set()  # a cancelled upload ends after the part that it is sending
        return _stat(key, facts)

    def _publish_blocking(self, key: NarKey, source: Spooled, given_up: Event) -> Facts:
        where = keys.nar_key(key)
        facts = self._bucket.stat(where)
        if facts is None or facts.size != source.size:
            Upload(
                bucket=self._bucket,
                key=where,
                source=source,
                part=self._part,
                options={**self._options, "Metadata": {"sha256": source.sha256.digest.hex()}},
                given_up=given_up,
            ).run_blocking()
            facts = self._bucket.stat(where)
        if facts is None or facts.size != source.size:
            raise Unavailable(f"{self._bucket.name(where)} is not there just after it was written")
        source.path.unlink(missing_ok=True)
        return facts

    async def delete(self, key: NarKey) -> bool:
        return await self._requests.run(_delete_blocking, self._bucket, keys.nar_key(key))

    async def quarantine(self, key: NarKey) -> bool:
        target = keys.quarantine_key(key, keys.new_mark(self._now()))
        return await self._requests.run(self._move_blocking, keys.nar_key(key), target)

    def _move_blocking(self, where: str, target: str) -> bool:
        facts = self._bucket.stat(where)
        if facts is None:
            return False
        try:
            copy_blocking(
                self._bucket, where, target, facts.size, self._options, self._largest_copy
            )
        except NotFound:
            return False
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
                yield Stat(key=key, size=item.size, modified=item.modified)

    async def location(self, key: NarKey, *, size: int) -> str | None:
        if self._redirect_from is None or size < self._redirect_from:
            return None
        # In a thread, since signing may have to renew the credentials first.
        return await self._requests.run(
            self._bucket.address, keys.nar_key(key), self._redirect_ttl_s
        )


def _check(key: NarKey, start: int, stop: int | None, size: int | None, actual: int) -> int:
    """Return where the bytes end; Corrupt if there are not that many."""
    end = actual if stop is None else stop
    if size not in {None, actual} or not 0 <= start <= end <= actual:
        wanted = f"bytes {start} to {end}" if size is None else f"{size} bytes"
        raise Corrupt(f"{key.file_name} has {actual} bytes in the store, wanted: {wanted}")
    return end


def _stat(key: NarKey, facts: Facts) -> Stat:
    return Stat(key=key, size=facts.size, modified=facts.modified)


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
