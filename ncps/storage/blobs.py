"""Blobs: the port between the stores and a directory or a bucket with their objects.

Both keep objects under the keys of `ncps.storage.keys`. A key never shows a partial object. Every
method may raise Unavailable; those that write may raise StorageFull.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Protocol

from attrs import frozen

from ncps.errors import Corrupt
from ncps.nix.hashes import Hash
from ncps.ports import Body, Reopen, Spooled


@frozen(kw_only=True)
class Blob:
    """An object and its properties.

    :param tag: identifies this object among all that have or had its key.
    """

    key: str
    size: int
    modified: datetime
    tag: str


@frozen
class Wanted:
    """A range of bytes to open, and the expected size and tag of the object.

    :param stop: the end of the bytes; None for the end of the object.
    :param size: the expected size; None for any.
    :param tag: the expected tag; None for any.
    """

    start: int = 0
    stop: int | None = None
    size: int | None = None
    tag: str | None = None

    def end(self, name: str, actual: int) -> int:
        """Return the end of the range in an object of `actual` bytes.

        Raises Corrupt if the object has another size than expected, or is shorter than the range.
        """
        end = actual if self.stop is None else self.stop
        if self.size not in (None, actual) or not 0 <= self.start <= end <= actual:
            what = f"bytes {self.start} to {end}" if self.size is None else f"{self.size} bytes"
            raise Corrupt(f"{name} has {actual} bytes in the store, wanted: {what}")
        return end


class Blobs(Protocol):
    """A place that keeps objects by key."""

    async def stat(self, key: str) -> Blob | None:
        """Return the object's properties; None if it is surely absent."""

    async def first_of(self, keys: Sequence[str]) -> tuple[int, Blob] | None:
        """Return the first of these objects that exists, and its index; None if there is none."""
        for number, key in enumerate(keys):
            blob = await self.stat(key)
            if blob is not None:
                return number, blob
        return None

    async def open(self, key: str, wanted: Wanted) -> Body:
        """Open bytes of an object.

        Raises NotFound if it is absent, Corrupt if it has another size, Replaced if it has another
        tag.
        """

    def reopener(self, key: str, *, size: int, tag: str) -> Reopen | None:
        """See `NarStore.reopener`."""
        return None

    async def read(self, key: str) -> bytes | None:
        """Return the bytes of a small object; None if it is surely absent."""

    async def write(self, key: str, data: bytes) -> None:
        """Write or replace a small object: atomic, durable on return."""

    async def create(self, key: str, data: bytes) -> bytes:
        """Create a small object unless it exists; return its bytes.

        Of several concurrent creators one wins, and all return its bytes.
        """

    async def adopt(self, key: str, source: Spooled, aside: str) -> tuple[Blob, bool]:
        """Make a finished file the object: atomic, durable on return. The file is removed.

        Returns the object, and whether an object with other bytes was there, which is under the key
        `aside` now. Raises Corrupt if the file has another size or hash than `source` says.
        """

    async def put(self, key: str, data: bytes, sha256: Hash, aside: str) -> tuple[Blob, bool]:
        """Make bytes in memory the object, as `adopt` does with a file.

        Objects of calls that wait at the same time may be written together, which costs less.

        :param data: at most `ncps.ports.SMALL` bytes.
        :param sha256: the hash of `data`; the caller has computed it.
        """

    async def copy(self, key: str, target: str, *, tag: str) -> Blob:
        """Give an object a second key, replacing an object there; return the new object.

        Raises NotFound if the object is absent, Replaced if it has another tag.
        """

    async def move(self, key: str, target: str) -> bool:
        """Give an object another key; return False if the object is absent."""

    async def delete(self, key: str) -> bool:
        """Remove an object; return False if it is absent."""

    async def discard(self, key: str) -> None:
        """Remove an object if it exists; for a bucket this is one request less than `delete`."""

    def walk(self, base: str) -> AsyncIterator[Blob]:
        """Yield the objects below one of the bases of `keys`, in no order.

        An object that comes or goes during the walk may or may not appear.
        """

    async def location(self, key: str, size: int) -> str | None:
        """Return a URL at which clients get an object of this size; None if there is none."""
        return None
