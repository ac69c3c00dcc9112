"""State: facts that the core holds in memory until a restart, and notices that change them.

Narinfos are held as rendered text, by hash part, bounded in bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Final, TypeVar

from attrs import define, frozen
from twisted.internet.interfaces import IReactorTime

from ncps.aio.clocks import wall_of
from ncps.aio.guess import is_unwanted
from ncps.aio.recent import BoundedMap, RecentMap, RecentSet
from ncps.aio.tasks import Tasks
from ncps.errors import Malformed
from ncps.nix.narurl import NarKey
from ncps.nix.realisation import RealisationKey
from ncps.ports import Catalog, NarInfoEntry, NarRecord, Notice, NoticeKind, Notices
from ncps.ranges import entity_tag

K = TypeVar("K")

DOUBT_S: Final = 600.0
"""Seconds for which an upstream is in doubt about a path."""

MAX_PATHS: Final = 10_000
"""Paths about which upstreams are in doubt, at most."""

MAX_KEYS: Final = 50_000
"""NARs whose paths are remembered, at most."""

MAX_WAITING: Final = 100_000
"""Narinfos whose use waits to be written, at most; the same bound for NARs."""

PIECE: Final = 1000
"""Times of use that are written by one call of the catalog."""

_OVERHEAD = 670  # bytes of Python objects per entry, beside the text


@define(eq=False)
class KnownNarInfo:
    """A narinfo ready to serve.

    :param upstream: base URL of the upstream that it came from.
    :param upstream_name: the name of that upstream; empty if it is no longer configured.
    :param fetched_at: seconds since the epoch.
    :param tag: entity tag of the text.
    """

    digest: str
    text: bytes
    nar: NarRecord
    upstream: str
    upstream_name: str
    fetched_at: float
    tag: bytes


def known(entry: NarInfoEntry, nar: NarRecord, upstream_name: str) -> KnownNarInfo:
    """Render a narinfo of the catalog."""
    text = entry.narinfo.render()
    return KnownNarInfo(
        digest=entry.digest,
        text=text,
        nar=nar,
        upstream=entry.upstream,
        upstream_name=upstream_name,
        fetched_at=entry.fetched_at.timestamp(),
        tag=entity_tag(text),
    )


class NarInfoMemory:
    """Holds narinfos; drops the least recently used ones first.

    A change of a narinfo or of the state of a NAR, here or on another replica, drops the narinfo.
    The callback `forgotten` then drops the answers made from it.

    :param max_bytes: bound on texts and their overhead; 0 holds nothing.
    :ivar forgotten: called with the hash part of each narinfo that was dropped or replaced.
    :ivar nar_changed: called with a NAR whose state has changed; with None if any NAR's may have.
    :ivar changes: number of changes of NARs so far. Callers must not put in a narinfo that they
        read from the catalog before a change.
    """

    def __init__(self, max_bytes: int) -> None:
        self.changes = 0
        self._max_bytes = max_bytes
        self.forgotten: Callable[[str], object] = len
        self.nar_changed: Callable[[NarKey | None], object] = bool
        self._by_digest: BoundedMap[str, KnownNarInfo] = BoundedMap(
            max_bytes, size_of=_size, forgotten=self._forgotten
        )
        self._by_key: dict[NarKey, dict[str, KnownNarInfo]] = {}

    def __len__(self) -> int:
        return len(self._by_digest)

    def get(self, digest: str) -> KnownNarInfo | None:
        """Return the narinfo of this hash part; None if it is not held."""
        if not is_unwanted():
            self._by_digest.renew(digest)
        return self._by_digest.get(digest)

    def renew(self, digests: Iterable[str]) -> None:
        """Mark narinfos as just used; ignore those that are not held."""
        for digest in digests:
            self._by_digest.renew(digest)

    def nar(self, key: NarKey) -> NarRecord | None:
        """Return the record of a NAR that a held narinfo names; None if no narinfo does."""
        for item in self._items_of(key):
            return item.nar
        return None

    def digests_of(self, key: NarKey) -> set[str]:
        """Return the hash parts of the held narinfos that name this NAR."""
        return {item.digest for item in self._items_of(key)}

    def origins_of(self, key: NarKey) -> dict[str, str]:
        """Return the same hash parts, each with the base URL that its narinfo came from."""
        return {item.digest: item.upstream for item in self._items_of(key)}

    def _items_of(self, key: NarKey) -> Collection[KnownNarInfo]:
        return self._by_key.get(key, {}).values()

    def put(self, item: KnownNarInfo) -> None:
        """Hold a narinfo, in place of an older one of the same hash part.

        A narinfo that no client has asked for displaces no other one, and is dropped first.
        """
        is_guess = is_unwanted()
        self.drop(item.digest)
        if is_guess and not self._by_digest.has_room_for(item):
            return
        if _size(item) > self._max_bytes:  # it would only displace the others
            self.forgotten(item.digest)
            return
        self._by_key.setdefault(item.nar.key, {})[item.digest] = item
        self._by_digest.put(item.digest, item)
        if is_guess:
            self._by_digest.age(item.digest)

    def changed(self, digest: str) -> None:
        """Drop a narinfo, because it has changed."""
        self.changes += 1
        self.drop(digest)

    def drop(self, digest: str) -> None:
        """Drop a narinfo."""
        self._by_digest.forget(digest)

    def _forgotten(self, item: KnownNarInfo) -> None:
        siblings = self._by_key[item.nar.key]
        del siblings[item.digest]
        if not siblings:
            del self._by_key[item.nar.key]
        self.forgotten(item.digest)

    def drop_nar(self, key: NarKey) -> None:
        """Drop every narinfo of this NAR, because the state of the NAR has changed."""
        self.changes += 1
        for digest in self.digests_of(key):
            self.drop(digest)
        self.nar_changed(key)

    def clear(self) -> None:
        """Drop everything, because the changes are unknown."""
        self.changes += 1
        self._by_digest.clear()
        self.nar_changed(None)


def _size(item: KnownNarInfo) -> int:
    return len(item.text) + _OVERHEAD


class Invalidation:
    """Sends notices of changes to the other processes of this cache, and acts on their notices.

    The memory of each process is right while it gets a notice of each change by the others. Notices
    may be lost. So this process drops its whole memory after a gap, and `expire` does so at
    intervals. Nothing is received before `listen`.
    """

    def __init__(
        self, notices: Notices, tasks: Tasks, memory: NarInfoMemory, negatives: RecentSet
    ) -> None:
        self._notices = notices
        self._tasks = tasks
        self._memory = memory
        self._negatives = negatives

    def listen(self) -> None:
        """Act on the notices of the others from now on."""
        self._notices.subscribe(self.heard)

    def nar_changed(self, key: NarKey) -> None:
        """Drop the narinfos of a NAR in all processes, because its state has changed here."""
        self._memory.drop_nar(key)
        self._tell("nar", key.file_name)

    def narinfo_changed(self, digest: str) -> None:
        """Drop a narinfo in all processes, because it was replaced or forgotten here."""
        self._memory.changed(digest)
        self._tell("narinfo", digest)

    def appeared(self, digest: str, key: NarKey) -> None:
        """Forget in all processes that a narinfo and its NAR are absent: they are known now."""
        self._negatives.forget(digest)
        self._negatives.forget(key)
        self._tell("absent", digest)
        self._tell("absent", key.file_name)

    def realisation_appeared(self, key: RealisationKey) -> None:
        """Forget in all processes that a realisation is absent: it is known now."""
        self._negatives.forget(key)
        self._tell("realisation", key.path)

    def _tell(self, kind: NoticeKind, name: str) -> None:
        if self._notices.is_alone:
            return
        self._tasks.start(f"notice of {name}", self._notices.publish(Notice(kind, name)))

    def heard(self, notice: Notice) -> None:
        """Act on a notice: drop the things that another process has changed."""
        if notice.kind == "gap":
            self._memory.clear()
            self._negatives.clear()
        elif notice.kind == "realisation":
            self._negatives.forget(_realisation_of(notice.name))
        elif notice.kind == "narinfo":
            self._memory.changed(notice.name)
        else:
            self._heard_of(notice)

    def _heard_of(self, notice: Notice) -> None:
        try:
            key = NarKey.parse(notice.name)
        except Malformed:  # a digest
            self._memory.drop(notice.name)
            self._negatives.forget(notice.name)
            return
        self._memory.drop_nar(key)
        self._negatives.forget(key)

    async def expire(self) -> None:
        """Drop all narinfos from memory; requests read them again from the catalog."""
        self._memory.clear()


def _realisation_of(path: str) -> RealisationKey | None:
    try:
        return RealisationKey.parse(path)
    except Malformed:  # of another version
        return None


class LastUse:
    """Narinfos and NARs used since the last flush. Beyond `MAX_WAITING`, no new ones are noted."""

    def __init__(self, clock: IReactorTime, catalog: Catalog) -> None:
        self._now = wall_of(clock)
        self._catalog = catalog
        self._narinfos: dict[str, float] = {}
        self._nars: dict[NarKey, float] = {}

    def narinfo(self, digest: str) -> None:
        """Note that a narinfo was served."""
        if len(self._narinfos) < MAX_WAITING:
            self._narinfos[digest] = self._now()

    def narinfos(self, digests: Iterable[str]) -> None:
        """Note that narinfos were served."""
        room = max(0, MAX_WAITING - len(self._narinfos))
        self._narinfos.update(dict.fromkeys(islice(digests, room), self._now()))

    def nar(self, key: NarKey) -> None:
        """Note that a NAR was served."""
        if len(self._nars) < MAX_WAITING:
            self._nars[key] = self._now()

    async def flush(self) -> None:
        """Write the noted times to the catalog; if that fails they are lost: entries look older."""
        if not self._narinfos and not self._nars:
            return
        narinfos, self._narinfos = self._narinfos, {}
        nars, self._nars = self._nars, {}
        # In pieces: to convert 100,000 times takes longer than a turn of the reactor should.
        for times in _pieces(narinfos):
            await self._catalog.touch(times, {})
        for nar_times in _pieces(nars):
            await self._catalog.touch({}, nar_times)


def _pieces(uses: dict[K, float]) -> Iterator[dict[K, datetime]]:
    left = iter(uses.items())
    while piece := {key: datetime.fromtimestamp(at, UTC) for key, at in islice(left, PIECE)}:
        yield piece


class Doubts:
    """Upstreams whose narinfo of a path has recently led to no good NAR.

    URL, FileHash and FileSize are not signed, so a narinfo may have a good signature and still be
    wrong. An upstream that sent such a narinfo is asked last for that path, for `DOUBT_S` seconds,
    so that its narinfo does not hide the good narinfos of the others.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._doubted: RecentMap[str, frozenset[str]] = RecentMap(
            clock, ttl_s=DOUBT_S, max_entries=MAX_PATHS
        )

    def add(self, digest: str, base_url: str) -> None:
        """Doubt the narinfo of an upstream for a store path's hash part."""
        self._doubted.put(digest, self.about(digest) | {base_url})

    def about(self, digest: str) -> frozenset[str]:
        """Return the base URLs of the upstreams that are in doubt about a path."""
        return self._doubted.get(digest) or frozenset()


class Paths:
    """Remembers to which store path each NAR URL belongs that clients got.

    A narinfo that is fetched again may name another URL. Then the catalog has no narinfo with the
    old URL. A client that still has the old URL must be answered nevertheless, also from other
    upstreams. For those, the cache needs the hash part of the store path.
    """

    def __init__(self) -> None:
        self._digests: BoundedMap[NarKey, str] = BoundedMap(MAX_KEYS)

    def note(self, key: NarKey, digest: str) -> None:
        """Note that a narinfo of this hash part names this NAR."""
        self._digests.put(key, digest)

    def of(self, key: NarKey) -> set[str]:
        """Return the hash part noted last; empty if none was."""
        digest = self._digests.get(key)
        return set() if digest is None else {digest}


@frozen
class CacheState:
    """The parts of the state; made once for a World.

    :param memory: narinfos that were read or fetched.
    :param negatives: hash parts and NARs that no upstream had a moment ago.
    :param uses: times of last use that are not written yet.
    :param board: sends and receives the notices of changes.
    :param doubts: upstreams whose narinfo of a path has led to no good NAR.
    :param paths: the store paths of the NAR URLs that clients got.
    """

    memory: NarInfoMemory
    negatives: RecentSet
    uses: LastUse
    board: Invalidation
    doubts: Doubts
    paths: Paths


class SymbolNews:
    """Reports stored NARs that have files with symbols.

    :ivar on_unread: called with a NAR whose path is for such files, if it was not searched yet.
    :ivar on_found: called with the build IDs of such files in a verified NAR.
    """

    def __init__(self) -> None:
        self.on_unread: Callable[[NarRecord], object] = lambda _: None
        self.on_found: Callable[[NarKey, Sequence[str]], object] = lambda *_: None

    def stored(self, entry: NarInfoEntry, nar: NarRecord) -> None:
        """Report a stored NAR of a path if it may have files with symbols."""
        if entry.narinfo.store_path.name.endswith("-debug"):
            self.on_unread(nar)

    def published(
        self, nar: NarRecord, entries: Sequence[NarInfoEntry], build_ids: Sequence[str]
    ) -> None:
        """Report a NAR that was just stored, with its narinfos and the build IDs in it."""
        if build_ids and entries:  # without a narinfo nothing vouches for the symbols
            self.on_found(nar.key, build_ids)
        for entry in () if build_ids else entries:
            self.stored(entry, nar)

    def verified(self, nar: NarRecord, build_ids: Sequence[str]) -> None:
        """Report the build IDs in a stored NAR that was verified, unless a client uploaded it."""
        if build_ids and nar.upstream:
            self.on_found(nar.key, build_ids)
