"""Stores: NARs, the narinfos beside them, and few small secrets (D13)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from attrs import frozen

from ncps.errors import Corrupt
from ncps.nix.hashes import Hash
from ncps.nix.narurl import NarKey
from ncps.ports.bodies import Body, Reopen

SMALL: Final = 1024 * 1024
"""Bytes of a NAR file that may be held in memory until it is stored."""


class Replaced(Corrupt):
    """The object under a key is another one than its tag says: its bytes are unknown."""


@frozen(kw_only=True)
class Stat:
    """The facts that a store tells of one of its objects.

    :param tag: tells this object from every other one that has or had its key: a store gives an
        object whose bytes were changed or replaced another tag. Never empty.
    """

    key: NarKey
    size: int
    modified: datetime
    tag: str


@frozen(kw_only=True)
class SetAside:
    """One NAR file that was found wrong and lies in the quarantine.

    :param mark: tells apart those of one key; the store's own.
    :param since: when it was set aside, by the clock of the machine that did it.
    """

    key: NarKey
    mark: str
    size: int
    since: datetime


@frozen(kw_only=True)
class Spooled:
    """A finished file on local disk that a store may take over (rename) or copy.

    :param sha256: hash of the file's bytes as they lie there.
    """

    path: Path
    size: int
    sha256: Hash


class NarStore(Protocol):
    """Keeps NAR files under their keys. Nothing partial is ever seen under a key."""

    async def stat(self, key: NarKey) -> Stat | None:
        """Return facts of the object; None: surely absent. Raises Unavailable if it cannot tell."""

    async def first_of(self, candidates: Sequence[NarKey]) -> Stat | None:
        """Return the properties of the first of these objects that is there; else as `stat`."""

    async def open(
        self,
        key: NarKey,
        start: int = 0,
        stop: int | None = None,
        *,
        size: int | None = None,
        tag: str | None = None,
    ) -> Body:
        """Open bytes `start` to `stop` (exclusive, default the end).

        Raises NotFound if the object is absent, Unavailable if it cannot be read now.

        :param size: the size that the object should have; raises Corrupt if it has another.
        :param tag: the tag that it should have; raises Replaced if it has another.
        """

    def reopener(self, key: NarKey, *, size: int, tag: str) -> Reopen | None:
        """Return a function that opens the whole object at each call; None if it is in no file.

        It opens the file under the key each time, and only one of this size and this tag.
        """
        return None

    async def publish(self, key: NarKey, source: Spooled) -> Stat:
        """Make the spooled file the object: atomic, durable on return, idempotent.

        Consumes the source file, which the caller has verified. It replaces an object with other
        bytes that is there already, and sets that one aside. Raises Corrupt if the source is not
        what it is said to be, StorageFull if there is no room, Unavailable if it fails now.
        """

    async def put_small(self, key: NarKey, data: bytes, sha256: Hash) -> Stat:
        """Make bytes in memory the object: as `publish`, but without a file to begin with.

        Calls that wait at the same time may share what syncing costs. A call that is cancelled
        may be made all the same.

        :param data: at most `SMALL` bytes.
        :param sha256: their hash, which the caller has computed.
        """

    def watch(self, replaced: Callable[[], object]) -> None:
        """Have `replaced` called, on the reactor's thread, for each object `publish` set aside."""

    async def copy(self, key: NarKey, target: NarKey, *, tag: str) -> Stat:
        """Give an object a second key, atomic and durable on return; an object there is replaced.

        Raises Replaced if the object's tag is another, NotFound if it is absent, StorageFull if
        there is no room, Unavailable if it fails now.
        """

    async def delete(self, key: NarKey) -> bool:
        """Remove the object; False if it was absent. Raises Unavailable if it cannot."""

    async def quarantine(self, key: NarKey) -> bool:
        """Set the object aside where no request finds it but an operator can; False if absent.

        Objects that were set aside before stay, also one of the same key and the same moment.
        Raises StorageFull if there is no room, or the store is read-only or does not permit it,
        Unavailable if it fails now.
        """

    def walk_quarantine(self) -> AsyncIterator[SetAside]:
        """All that `quarantine` has set aside, in no order, and no other files.

        Files that come or go meanwhile may or may not appear. Raises Unavailable if it fails now.
        """

    async def discard(self, aside: SetAside) -> None:
        """Remove a file that was set aside, if it is still there. Needs no room.

        Raises StorageFull if the store is read-only or does not permit it, Unavailable if it fails
        now.
        """

    def walk(self) -> AsyncIterator[Stat]:
        """Every object, in no order; objects that come or go meanwhile may or may not appear."""

    async def location(self, key: NarKey, *, size: int) -> str | None:
        """A URL where for minutes clients get the object, if it exists; None: get it here."""
        return None


class NarInfoStore(Protocol):
    """Keeps beside each published NAR the narinfo as verified (text, D13), by store path hash."""

    async def put(self, digest: str, text: bytes) -> None:
        """Write or replace, atomic and durable on return.

        Raises StorageFull if nothing may be written, Unavailable if it fails now.
        """

    async def get(self, digest: str) -> bytes | None:
        """Return the text; None: surely absent. Raises Unavailable if it cannot tell."""

    async def delete(self, digest: str) -> bool:
        """Remove it; False if it was absent. Raises Unavailable if it cannot."""

    async def written(self, digest: str) -> datetime | None:
        """Return when the text was written; None: surely absent.

        Raises Unavailable if it cannot tell.
        """

    def walk(self) -> AsyncIterator[str]:
        """Every digest, in no order."""


class ConfigStore(Protocol):
    """Keeps the signing key and few small secrets, each created exactly once."""

    async def get(self, name: str) -> bytes | None:
        """Return the value; None: surely absent. Raises Unavailable if it cannot tell."""

    async def create(self, name: str, value: bytes) -> bytes:
        """Create `name` unless it exists; return the value that is there afterwards.

        Of any number of concurrent creators, in any number of processes, one wins and all
        return its value. Durable on return. Raises StorageFull or Unavailable if it cannot write.
        """

    async def replace(self, name: str, value: bytes) -> None:
        """Set `name` to this value, new or not. Raises StorageFull or Unavailable if it cannot."""
