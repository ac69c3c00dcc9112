"""Stores in memory, for tests of the parts that use stores.

Each has `failing`: an error set there is raised by every method until it is set to None again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime

from ncps.errors import Corrupt, NcpsError, NotFound, StorageFull, Unavailable
from ncps.nix.hashes import Hash, sha256_of
from ncps.nix.narurl import NarKey
from ncps.ports import (
    SMALL,
    Body,
    ConfigStore,
    ExtraKey,
    ExtraKind,
    ExtraStat,
    ExtraStore,
    NarInfoStore,
    NarStore,
    Reopen,
    Replaced,
    Segment,
    SetAside,
    Spooled,
    Stat,
)
from ncps.storage import keys
from tests.fakes.files import MemoryFile

CHUNK = 64 * 1024


class MemoryBody(Body):
    """Bytes in memory as a Body."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.is_closed = False

    @property
    def size(self) -> int:
        return len(self._data)

    def segment(self) -> Segment | None:
        return None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._data), CHUNK):
            if self.is_closed:
                return
            yield self._data[start : start + CHUNK]

    def close(self) -> None:
        self.is_closed = True


class _Failing:
    failing: NcpsError | None = None

    def _check(self) -> None:
        if self.failing is not None:
            raise self.failing.with_traceback(None)


class MemoryNarStore(_Failing, NarStore):
    """NARs in a dictionary; `objects` and `asides` may be looked at and changed.

    :ivar asides: the objects that were set aside, with their bytes, by mark.
    :ivar elsewhere: if set, `location` gives it with the file name after it.
    :ivar bodies: every body that was opened, to see that all of them were closed.
    :ivar undiscardable: marks of what `discard` has no leave to remove.
    :ivar now: when something is set aside.
    """

    def __init__(self) -> None:
        self.objects: dict[NarKey, bytes] = {}
        self.asides: dict[str, tuple[SetAside, bytes]] = {}
        self.undiscardable: set[str] = set()
        self.now: Callable[[], datetime] = lambda: datetime.now(UTC)
        self.elsewhere = ""
        self._replaced: Callable[[], object] = lambda: None
        self.bodies: list[MemoryBody] = []
        self._modified: dict[NarKey, datetime] = {}

    def put(self, key: NarKey, data: bytes) -> None:
        """Have the object there, just so."""
        self.objects[key] = data
        self._modified[key] = datetime.now(UTC)

    def put_aside(self, key: NarKey, data: bytes, since: datetime | None = None) -> SetAside:
        """Have the file in the quarantine, just so."""
        since = since or self.now()
        mark = keys.new_mark(since.timestamp())
        aside = SetAside(key=key, mark=mark, size=len(data), since=since)
        self.asides[mark] = (aside, data)
        return aside

    @property
    def quarantined(self) -> list[tuple[NarKey, bytes]]:
        """Keys that were set aside, in that order."""
        return [(aside.key, data) for aside, data in self.asides.values()]

    def _stat(self, key: NarKey) -> Stat:
        modified = self._modified.get(key, datetime.now(UTC))
        size = len(self.objects[key])
        return Stat(key=key, size=size, modified=modified, tag=self.tag(key))

    def tag(self, key: NarKey) -> str:
        """Tells its bytes from others."""
        return str(sha256_of(self.objects[key]))

    async def stat(self, key: NarKey) -> Stat | None:
        self._check()
        return self._stat(key) if key in self.objects else None

    async def first_of(self, candidates: Sequence[NarKey]) -> Stat | None:
        for key in candidates:
            stat = await self.stat(key)
            if stat is not None:
                return stat
        return None

    async def open(
        self,
        key: NarKey,
        start: int = 0,
        stop: int | None = None,
        *,
        size: int | None = None,
        tag: str | None = None,
    ) -> MemoryBody:
        self._check()
        data = self.objects.get(key)
        if data is None:
            raise NotFound(f"{key.file_name} is not in the store")
        end = len(data) if stop is None else stop
        if size not in (None, len(data)) or not 0 <= start <= end <= len(data):
            raise Corrupt(f"{key.file_name} has {len(data)} bytes in the store")
        if tag not in (None, self.tag(key)):
            raise Replaced(f"{key.file_name} was replaced in the store")
        self.bodies.append(MemoryBody(data[start:end]))
        return self.bodies[-1]

    def reopener(self, key: NarKey, *, size: int, tag: str) -> Reopen | None:
        def reopen() -> MemoryFile | None:
            data = self.objects.get(key)
            if data is None or len(data) != size or self.tag(key) != tag:
                return None
            return MemoryFile(data)

        return reopen

    async def publish(self, key: NarKey, source: Spooled) -> Stat:
        self._check()
        try:
            data = source.path.read_bytes()
        except OSError as error:
            raise Unavailable(f"{source.path} cannot be read: {error.strerror}") from error
        if len(data) != source.size or sha256_of(data) != source.sha256:
            raise Corrupt(f"{source.path} is not what it is said to be")
        source.path.unlink()
        return self._published(key, data)

    async def put_small(self, key: NarKey, data: bytes, sha256: Hash) -> Stat:
        self._check()
        assert len(data) <= SMALL
        assert sha256_of(data) == sha256
        return self._published(key, data)

    def _published(self, key: NarKey, data: bytes) -> Stat:
        if self.objects.get(key, data) != data:
            self.put_aside(key, self.objects[key])
            self._replaced()
        self.put(key, data)
        return self._stat(key)

    def watch(self, replaced: Callable[[], object]) -> None:
        self._replaced = replaced

    async def copy(self, key: NarKey, target: NarKey, *, tag: str) -> Stat:
        self._check()
        if key not in self.objects:
            raise NotFound(f"{key.file_name} is not in the store")
        if tag != self.tag(key):
            raise Replaced(f"{key.file_name} was replaced in the store")
        self.put(target, self.objects[key])
        return self._stat(target)

    async def delete(self, key: NarKey) -> bool:
        self._check()
        return self.objects.pop(key, None) is not None

    async def quarantine(self, key: NarKey) -> bool:
        self._check()
        if key not in self.objects:
            return False
        self.put_aside(key, self.objects.pop(key))
        return True

    async def walk_quarantine(self) -> AsyncIterator[SetAside]:
        self._check()
        for aside, _ in list(self.asides.values()):
            if aside.mark in self.asides:
                yield aside

    async def discard(self, aside: SetAside) -> None:
        self._check()
        if aside.mark in self.undiscardable:
            raise StorageFull(f"no leave to remove {aside.key.file_name}")
        self.asides.pop(aside.mark, None)

    async def walk(self) -> AsyncIterator[Stat]:
        self._check()
        for key in list(self.objects):
            if key in self.objects:
                yield self._stat(key)

    async def location(self, key: NarKey, *, size: int) -> str | None:
        self._check()
        return f"{self.elsewhere}{key.file_name}" if self.elsewhere else None


class MemoryNarInfoStore(_Failing, NarInfoStore):
    """Texts in a dictionary."""

    def __init__(self) -> None:
        self.texts: dict[str, bytes] = {}
        self.times: dict[str, datetime] = {}

    def _checked(self, digest: str) -> str:
        self._check()
        keys.narinfo_key(digest)
        return digest

    async def put(self, digest: str, text: bytes) -> None:
        self.texts[self._checked(digest)] = text
        self.times[digest] = datetime.now(UTC)

    async def get(self, digest: str) -> bytes | None:
        return self.texts.get(self._checked(digest))

    async def delete(self, digest: str) -> bool:
        return self.texts.pop(self._checked(digest), None) is not None

    async def written(self, digest: str) -> datetime | None:
        return self.times[digest] if self._checked(digest) in self.texts else None

    async def walk(self) -> AsyncIterator[str]:
        self._check()
        for digest in list(self.texts):
            yield digest


class MemoryExtraStore(_Failing, ExtraStore):
    """Extras in a dictionary.

    :ivar modified: may be changed.
    :ivar full: raised by `put`.
    """

    def __init__(self) -> None:
        self.objects: dict[ExtraKey, bytes] = {}
        self.modified: dict[ExtraKey, datetime] = {}
        self.full: NcpsError | None = None
        self.bodies: list[MemoryBody] = []

    async def open(self, key: ExtraKey) -> MemoryBody:
        self._check()
        if key not in self.objects:
            raise NotFound(f"{key.name} is not in the store")
        self.bodies.append(MemoryBody(self.objects[key]))
        return self.bodies[-1]

    async def read(self, key: ExtraKey) -> bytes | None:
        self._check()
        return self.objects.get(key)

    async def put(self, key: ExtraKey, data: bytes) -> None:
        self._check()
        if self.full is not None:
            raise self.full
        self.objects[key] = data
        self.modified[key] = datetime.now(UTC)

    async def delete(self, key: ExtraKey) -> bool:
        self._check()
        return self.objects.pop(key, None) is not None

    async def walk(self, kind: ExtraKind, *, is_uploaded: bool) -> AsyncIterator[ExtraStat]:
        self._check()
        for key, data in list(self.objects.items()):
            if (key.kind, key.is_uploaded) == (kind, is_uploaded) and key in self.objects:
                yield ExtraStat(key=key, size=len(data), modified=self.modified[key])


class MemoryConfigStore(_Failing, ConfigStore):
    """Values in a dictionary."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def _checked(self, name: str) -> str:
        self._check()
        keys.config_key(name)
        return name

    async def get(self, name: str) -> bytes | None:
        return self.values.get(self._checked(name))

    async def create(self, name: str, value: bytes) -> bytes:
        return self.values.setdefault(self._checked(name), value)

    async def replace(self, name: str, value: bytes) -> None:
        self.values[self._checked(name)] = value
