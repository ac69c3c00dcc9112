"""A cache core that answers from dictionaries, records what it was asked, and fails as told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Any, Self

from twisted.internet.defer import Deferred

from ncps.auth.principal import Principal
from ncps.cache.answers import (
    Absent,
    ArrivingNar,
    Cache,
    NarStat,
    Outcome,
    Readiness,
    RealisationCache,
    RealisationUpload,
    ServedNar,
    ServedNarInfo,
    ServedRealisation,
)
from ncps.errors import Corrupt
from ncps.nix.narurl import NarKey
from ncps.nix.realisation import RealisationKey
from ncps.ports import Body, Reopen, Segment
from ncps.ranges import entity_tag

PUBLIC_KEY = "cache.example:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

Piece = bytes | Exception | Deferred[None]
"""Of a scripted body: bytes to deliver, an error to raise, something to wait for."""


def served_narinfo(text: bytes, outcome: Outcome, **rest: Any) -> ServedNarInfo:
    """Make an answer whose tag is that of its text."""
    return ServedNarInfo(text=text, tag=entity_tag(text), outcome=outcome, **rest)


class ScriptedBody(Body, AsyncIterator[bytes]):
    """Delivers its pieces in order; bytes outside `start` to `stop` are skipped."""

    def __init__(self, pieces: Sequence[Piece], start: int, stop: int | None) -> None:
        self._pieces = pieces
        self._start = start
        self._stop = stop
        self.closed = 0
        self.delivered = 0

    @property
    def size(self) -> int | None:
        return None

    def segment(self) -> Segment | None:
        return None

    def __aiter__(self) -> Self:
        self._left = list(self._pieces)
        self._at = 0
        return self

    async def __anext__(self) -> bytes:
        while self._left:
            piece = self._left.pop(0)
            if isinstance(piece, Exception):
                raise piece
            if isinstance(piece, Deferred):
                await piece
                continue
            end = None if self._stop is None else max(0, self._stop - self._at)
            part = piece[max(0, self._start - self._at) : end]
            self._at += len(piece)
            if part:
                self.delivered += len(part)
                return part
        raise StopAsyncIteration

    def close(self) -> None:
        self.closed += 1


class StubNar(ServedNar):
    """An opened NAR made of pieces."""

    def __init__(
        self,
        key: NarKey,
        pieces: Sequence[Piece],
        *,
        size: int | None,
        outcome: Outcome = Outcome.HIT,
        upstream: str = "",
        sized: Callable[[], int] | None = None,
    ) -> None:
        self._key = key
        self._pieces = pieces
        self._size = size
        self._outcome = outcome
        self._upstream = upstream
        self._sized = sized
        self.elsewhere: str | None = None
        self.reopen: Reopen | None = None
        self.may_go_better = False
        self.complaints: list[str] = []
        self.bodies: list[ScriptedBody] = []
        self.closed = 0

    @property
    def key(self) -> NarKey:
        return self._key

    @property
    def size(self) -> int | None:
        return self._size

    @property
    def outcome(self) -> Outcome:
        return self._outcome

    @property
    def upstream(self) -> str:
        return self._upstream

    async def known_size(self) -> int:
        if self._sized is not None:
            self._size = self._sized()
        else:
            self._size = sum(len(piece) for piece in self._pieces if isinstance(piece, bytes))
        return self._size

    final_size = known_size

    async def location(self) -> str | None:
        return self.elsewhere

    async def body(self, start: int = 0, stop: int | None = None) -> ScriptedBody:
        body = ScriptedBody(self._pieces, start, stop)
        self.bodies.append(body)
        return body

    def reopener(self) -> Reopen | None:
        return self.reopen

    async def spoiled(self, error: Corrupt) -> bool:
        self.complaints.append(str(error))
        return self.may_go_better

    def close(self) -> None:
        self.closed += 1


class StubArrivingNar(StubNar, ArrivingNar):
    """One on its way."""

    file = "a file"


class StubCache(Cache):
    """A cache that answers with values of `narinfos` and `nars`, and raises those that are errors.

    :ivar asked: every digest and key asked for, in order.
    :ivar led_on: digests whose references may be fetched ahead.
    :ivar parts: of every NAR asked for, whether a part was wanted.
    :ivar old_names: of NARs, as others call them.
    :ivar used: digests and keys that were said to be repeated.
    :ivar forget: the function given to `watch`; `nar_changed` is that given to `watch_nars`.
    :ivar gate: if set, narinfo and nar wait for it first.
    """

    def __init__(self) -> None:
        self.narinfos: dict[str, ServedNarInfo | Exception] = {}
        self.nars: dict[NarKey, StubNar | Exception] = {}
        self.old_names: dict[str, NarKey] = {}
        self.asked: list[str | NarKey] = []
        self.led_on: list[str] = []
        self.parts: list[bool] = []
        self.gate: Deferred[None] | None = None
        self.used: list[str | NarKey] = []
        self.sent: list[tuple[float, float]] = []
        self.forget: Callable[[str], object] = len
        self.nar_changed: Callable[[NarKey | None], object] = bool
        self.state = Readiness(parts={"database": "ok"}, needed=frozenset({"database"}))

    @property
    def public_key(self) -> str:
        return PUBLIC_KEY

    def add_nar(self, key: NarKey, *pieces: Piece, size: int | None = None) -> StubNar:
        nar = self.nars[key] = StubNar(key, pieces, size=size)
        return nar

    async def narinfo(self, digest: str, *, leads_on: bool = False) -> ServedNarInfo:
        self.asked.append(digest)
        if leads_on:
            self.led_on.append(digest)
        if self.gate is not None:
            await self.gate
        found = self.narinfos.get(digest)
        if found is None:
            raise Absent("no such path", outcome=Outcome.NEGATIVE)
        if isinstance(found, Exception):
            raise found
        return found

    def watch(self, forgotten: Callable[[str], object]) -> None:
        self.forget = forgotten

    def repeated(self, digests: Collection[str]) -> None:
        self.used += digests

    def watch_nars(self, changed: Callable[[NarKey | None], object]) -> None:
        self.nar_changed = changed

    def nar_sent(self, busy_s: float, full_s: float) -> None:
        self.sent.append((busy_s, full_s))

    def nars_repeated(self, keys: Collection[NarKey]) -> None:
        self.used += keys

    async def key_of(self, digest: str, file_name: str) -> NarKey:
        self.asked.append(file_name)
        found = self.old_names.get(file_name)
        if found is None:
            raise Absent("no such name", outcome=Outcome.NEGATIVE)
        return found

    async def nar(self, key: NarKey, *, is_part: bool = False) -> StubNar:
        self.asked.append(key)
        self.parts.append(is_part)
        if self.gate is not None:
            await self.gate
        found = self.nars.get(key)
        if found is None:
            raise Absent("no such NAR", outcome=Outcome.MISS)
        if isinstance(found, Exception):
            raise found
        return found

    async def arriving_nar(self, key: NarKey) -> StubArrivingNar:
        nar = await self.nar(key)
        if not isinstance(nar, StubArrivingNar):
            raise Absent("it is not arriving", outcome=Outcome.MISS)
        return nar

    async def stat_nar(self, key: NarKey) -> NarStat:
        nar = await self.nar(key)
        return NarStat(nar.size, nar.outcome)

    async def readiness(self) -> Readiness:
        return self.state


class StubRealisations(RealisationCache):
    """Realisations in a dictionary; errors in it are raised.

    :ivar asked: every key asked for, and whether without upstreams.
    :ivar taken: every upload.
    :ivar upload: the result of each, or the error.
    """

    def __init__(self) -> None:
        self.found: dict[RealisationKey, ServedRealisation | Exception] = {}
        self.asked: list[tuple[RealisationKey, bool]] = []
        self.taken: list[tuple[RealisationKey, bytes, Principal]] = []
        self.upload: RealisationUpload | Exception = RealisationUpload.CREATED

    async def get(self, key: RealisationKey, *, is_local: bool = False) -> ServedRealisation:
        self.asked.append((key, is_local))
        found = self.found.get(key, Absent("no", outcome=Outcome.MISS))
        if isinstance(found, Exception):
            raise found
        return found

    async def accept(
        self, key: RealisationKey, text: bytes, principal: Principal
    ) -> RealisationUpload:
        self.taken.append((key, text, principal))
        if isinstance(self.upload, Exception):
            raise self.upload
        return self.upload

    async def forget(self, key: RealisationKey, principal: Principal) -> bool:
        return self.found.pop(key, None) is not None
