"""Narinfos held in memory as they are served: rendered text by hash, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from attrs import define

from ncps.nix.narurl import NarKey
from ncps.ports import NarInfoEntry, NarRecord
from ncps.ranges import entity_tag

_OVERHEAD = 670  # bytes of Python objects per entry, beside the text


@define(eq=False)
class KnownNarInfo:
    """A narinfo ready to serve.

    :param fetched_at: seconds since the epoch.
    :param tag: entity tag of the text.
    """

    digest: str
    text: bytes
    nar: NarRecord
    upstream: str
    fetched_at: float
    tag: bytes

    @property
    def is_stored(self) -> bool:
        """Whether its NAR's bytes are published."""
        return self.nar.is_stored


def known(entry: NarInfoEntry, nar: NarRecord) -> KnownNarInfo:
    """Render what the catalog has."""
    text = entry.narinfo.render()
    fetched_at = entry.fetched_at.timestamp()
    return KnownNarInfo(entry.digest, text, nar, entry.upstream, fetched_at, entity_tag(text))


class NarInfoMemory:
    """Least recently used narinfos go first.

    Whatever says that a narinfo or the state of a NAR has changed, here or on another replica,
    drops it from here, and by that from all that is made of what is held: see `forgotten`.

    :param max_bytes: bound on texts and their overhead; 0 holds nothing.
    :ivar forgotten: told the hash of every narinfo that is held no more, or was replaced.
    :ivar changes: how often a NAR's state was said to have changed; what was read from the
        catalog before such a change must not be put in after it.
    """

    def __init__(self, max_bytes: int) -> None:
        self.changes = 0
        self.forgotten: Callable[[str], object] = len
        self._max_bytes = max_bytes
        self._size = 0
        self._by_digest: OrderedDict[str, KnownNarInfo] = OrderedDict()
        self._by_key: dict[NarKey, set[str]] = {}

    def __len__(self) -> int:
        return len(self._by_digest)

    def get(self, digest: str) -> KnownNarInfo | None:
        """Return what is held of this hash."""
        item = self._by_digest.get(digest)
        if item is not None:
            self._by_digest.move_to_end(digest)
        return item

    def nar(self, key: NarKey) -> NarRecord | None:
        """Return the record of a NAR some held narinfo points at."""
        for digest in self._by_key.get(key, ()):
            return self._by_digest[digest].nar
        return None

    def digests_of(self, key: NarKey) -> set[str]:
        """Return the hashes of the held narinfos that point at this NAR."""
        return set(self._by_key.get(key, ()))

    def origins_of(self, key: NarKey) -> dict[str, str]:
        """Return the same hashes, each with the base URL its narinfo came from."""
        return {digest: self._by_digest[digest].upstream for digest in self.digests_of(key)}

    def put(self, item: KnownNarInfo) -> None:
        """Hold a narinfo, in place of an older one of the same hash."""
        self.drop(item.digest)
        self._by_digest[item.digest] = item
        self._by_key.setdefault(item.nar.key, set()).add(item.digest)
        self._size += len(item.text) + _OVERHEAD
        while self._size > self._max_bytes and self._by_digest:
            self.drop(next(iter(self._by_digest)))

    def drop(self, digest: str) -> None:
        """Forget a narinfo."""
        item = self._by_digest.pop(digest, None)
        if item is None:
            return
        self._size -= len(item.text) + _OVERHEAD
        siblings = self._by_key[item.nar.key]
        siblings.discard(digest)
        if not siblings:
            del self._by_key[item.nar.key]
        self.forgotten(digest)

    def drop_nar(self, key: NarKey) -> None:
        """Forget every narinfo of this NAR: its state has changed."""
        self.changes += 1
        for digest in self.digests_of(key):
            self.drop(digest)

    def clear(self) -> None:
        """Forget everything: nobody knows what has changed."""
        self.changes += 1
        for digest in list(self._by_digest):
            self.drop(digest)
