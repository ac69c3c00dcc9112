"""Stores: NARs, the narinfos beside them, and a few small secrets (D13)."""

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
"""Bytes of a NAR file that may stay in memory until it is stored, at most."""


class Replaced(Corrupt):
    """The object under a key has another tag than expected: its bytes are unknown."""


@frozen(kw_only=True)
class Stat:
    """The properties of an object in a store.

    :param tag: identifies this object among all that have or had its key: the tag changes if the
        bytes are changed or replaced. Never empty.
    """

    key: NarKey
    size: int
    modified: datetime
    tag: str


@frozen(kw_only=True)
class SetAside:
    """A wrong NAR file in the quarantine.

    :param mark: distinguishes files of one key; the store chooses it.
    :param since: when it was set aside, by the clock of the machine that did it.
    """

    key: NarKey
    mark: str
    size: int
    since: datetime


@frozen(kw_only=True)
class Spooled:
    """A finished file on local disk that a store may rename or copy.

    :param sha256: hash of the file's bytes.
    """

    path: Path
    size: int
    sha256: Hash


class NarStore(Protocol):
    """A store of NAR files by key. A key never shows a partial file."""

    async def stat(self, key: NarKey) -> Stat | None:
        """Return the properties; None: surely absent. Raises Unavailable if that is unknown."""

    async def first_of(self, candidates: Sequence[NarKey]) -> Stat | None:
        """Return the properties of the first of these objects that exists; None as in `stat`."""

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

        :param size: raises Corrupt if the object has another size.
        :param tag: raises Replaced if the object has another tag.
        """

    def reopener(self, key: NarKey, *, size: int, tag: str) -> Reopen | None:
        """Return a function that opens the whole object at each call; None if it is in no file.

        Each call opens the file under the key, if it has this size and this tag.
        """
        return None

    async def publish(self, key: NarKey, source: Spooled) -> Stat:
        """Make the spooled file the object: atomic, durable on return, idempotent.

        It removes the source file, which the caller has verified. An existing object with other
        bytes is set aside and replaced. Raises Corrupt if the source has another size or hash,
        StorageFull if there is no room, Unavailable if it fails now.
        """

    async def put_small(self, key: NarKey, data: bytes, sha256: Hash) -> Stat:
        """Make bytes in memory the object, as `publish` does with a file.

        Calls that wait at the same time may share one sync. A cancelled call may still have its
        effect.

        :param data: at most `SMALL` bytes.
        :param sha256: the hash of `data`; the caller has computed it.
        """

    def watch(self, replaced: Callable[[], object]) -> None:
        """Register a function; call it on the reactor's thread when `publish` sets one aside."""

    async def copy(self, key: NarKey, target: NarKey, *, tag: str) -> Stat:
        """Give an object a second key: atomic, durable on return; replace an object there.

        Raises Replaced if the object has another tag, NotFound if it is absent, StorageFull if
        there is no room, Unavailable if it fails now.
        """

    async def delete(self, key: NarKey) -> bool:
        """Remove the object; False if it was absent. Raises Unavailable if that fails."""

    async def quarantine(self, key: NarKey) -> bool:
        """Move the object to a place where only an operator finds it; False if it was absent.

        Objects that are there already stay, also one of the same key and the same moment. Raises
        StorageFull if there is no room, or if the store is read-only or refuses it, Unavailable if
        it fails now.
        """

    def walk_quarantine(self) -> AsyncIterator[SetAside]:
        """Yield all objects in the quarantine, in no order, and no other files.

        Files that come or go during the walk may or may not appear. Raises Unavailable if it fails
        now.
        """

    async def discard(self, aside: SetAside) -> None:
        """Remove a file from the quarantine, if it is still there. It needs no room.

        Raises StorageFull if the store is read-only or refuses it, Unavailable if it fails now.
        """

    def walk(self) -> AsyncIterator[Stat]:
        """Yield all objects, in no order; one that comes or goes in that time may be omitted."""

    async def location(self, key: NarKey, *, size: int) -> str | None:
        """Return a URL of the object that clients can use for minutes; None: serve it from here."""
        return None


class NarInfoStore(Protocol):
    """A store with the verified narinfo of each published NAR (text, D13), by store path hash."""

    async def put(self, digest: str, text: bytes) -> None:
        """Write or replace a text: atomic, durable on return.

        Raises StorageFull if nothing may be written, Unavailable if it fails now.
        """

    async def get(self, digest: str) -> bytes | None:
        """Return the text; None: surely absent. Raises Unavailable if that is unknown."""

    async def delete(self, digest: str) -> bool:
        """Remove a text; False if it was absent. Raises Unavailable if that fails."""

    async def written(self, digest: str) -> datetime | None:
        """Return when the text was written; None: surely absent.

        Raises Unavailable if that is unknown.
        """

    def walk(self) -> AsyncIterator[str]:
        """Yield every digest, in no order."""


class ConfigStore(Protocol):
    """A store of the signing key and a few small secrets, each created exactly once."""

    async def get(self, name: str) -> bytes | None:
        """Return the value; None: surely absent. Raises Unavailable if that is unknown."""

    async def create(self, name: str, value: bytes) -> bytes:
        """Create `name` unless it exists; return its value.

        If several processes call this at the same time, one wins, and all return its value. It is
        durable on return. Raises StorageFull or Unavailable if it cannot write.
        """

    async def replace(self, name: str, value: bytes) -> None:
        """Create or replace `name`. Raises StorageFull or Unavailable if it cannot write."""
