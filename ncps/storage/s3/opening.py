"""The opening of an object, in a thread, together with its first bytes."""

from __future__ import annotations

from threading import Lock

from ncps.errors import Conflict, Corrupt, NotFound
from ncps.ports import Replaced
from ncps.storage import keys
from ncps.storage.blobs import Wanted
from ncps.storage.s3.bucket import Bucket, Facts, Opened
from ncps.storage.s3.errors import OutOfRange
from ncps.storage.s3.source import S3Source


class Opening:
    """One call in a thread; if its caller is cancelled before its end, it closes the source."""

    def __init__(self, bucket: Bucket, key: str, wanted: Wanted) -> None:
        self._bucket = bucket
        self._key = key
        self._wanted = wanted
        self._lock = Lock()
        self._source: S3Source | None = None
        self._is_abandoned = False

    def run_blocking(self) -> tuple[S3Source, bytes]:
        """Open the object and read a first piece, which is the whole of most NARs.

        Raises NotFound if the object is absent; Corrupt if it has another size than expected;
        Replaced, a subclass of Corrupt, if it has another tag; Unavailable if the server fails.
        """
        opened = self._open()
        try:
            end = self._end(opened.facts)
        except Corrupt:
            opened.stream.close()
            raise
        start = self._wanted.start
        source = S3Source(
            opened,
            name=self._bucket.name(self._key),
            start=start,
            stop=end,
            reopen=lambda position: self._reopen(position, end, opened.facts),
        )
        if start == end:
            source.close()
        try:
            first = source.read_blocking()
        except BaseException:
            source.close()
            raise
        self._hand_over(source)
        return source, first

    def _open(self) -> Opened:
        start, stop = self._wanted.start, self._wanted.stop
        try:
            # S3 has no empty range; the answer for the first byte has the same properties.
            return self._bucket.open(self._key, *(start, stop) if stop != start else (0, 1))
        except OutOfRange:
            facts = self._bucket.stat(self._key)
            if facts is None:
                raise NotFound(f"{keys.file_name(self._key)} is not in the store") from None
            self._end(facts)
            return self._bucket.open(self._key)

    def _end(self, facts: Facts) -> int:
        """Return the end of the range. Raises Corrupt or Replaced for another object."""
        name = keys.file_name(self._key)
        end = self._wanted.end(name, facts.size)
        if self._wanted.tag not in {None, facts.tag}:
            raise Replaced(f"{name} was replaced in the store")
        return end

    def _reopen(self, position: int, stop: int, facts: Facts) -> Opened:
        opened = self._bucket.open(self._key, position, stop, etag=facts.tag)
        if opened.facts.size != facts.size:
            opened.stream.close()
            raise Conflict(f"{self._bucket.name(self._key)} has changed")
        return opened

    def _hand_over(self, source: S3Source) -> None:
        with self._lock:
            self._source = source
            is_abandoned = self._is_abandoned
        if is_abandoned:
            source.close()

    def abandon(self) -> None:
        """Close the source, or make the thread close it when it has opened it."""
        with self._lock:
            self._is_abandoned = True
            source = self._source
        if source is not None:
            source.close()
