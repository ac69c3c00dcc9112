"""Closure: reads the narinfos of a path and of all paths that it needs, level by level.

The hash parts of all paths are in memory until the end, about 250 bytes a path. The narinfos of
only one batch of a hundred are in memory, so a client that reads slowly uses little.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.interfaces import IReactorTime

from ncps.aio.bulkhead import Bulkhead
from ncps.cache.answers import ServedNarInfo
from ncps.cache.bulk import answers
from ncps.cache.bulk.answers import Closure, ClosurePath, Where
from ncps.cache.bulk.asking import Answer, Asking, is_absent
from ncps.cache.bulk.query import BATCH, Among, base_of, where_is
from ncps.nix.narurl import NarKey

FETCH_S: Final = 300.0
"""Seconds in which narinfos are fetched for one closure; after that, only known ones are listed."""

_REFERENCES: Final = b"\nReferences: "


class ClosureWalk(Closure):
    """Reads a closure.

    :param place: the bulkhead in which the opener has entered; `close` leaves it.
    :param asking: asks for unknown narinfos; None fetches nothing.
    :param used: called with the hash part of each listed narinfo.
    """

    def __init__(
        self,
        clock: IReactorTime,
        place: Bulkhead,
        among: Among,
        asking: Asking | None,
        is_arriving: Callable[[NarKey], bool],
        used: Callable[[str], object],
    ) -> None:
        self._clock = clock
        self._place = place
        self._among = among
        self._asking = asking
        self._is_arriving = is_arriving
        self._used = used
        self._ends = clock.seconds() + FETCH_S
        self._waiting: deque[str] = deque()
        self._seen: set[str] = set()
        self._read: Sequence[ClosurePath] = ()
        self._is_closed = False
        self._is_cut = False

    @property
    def is_cut(self) -> bool:
        """See `Closure`."""
        return self._is_cut

    async def begin(self, digest: str) -> ClosurePath:
        """Read the path itself, which `more` returns first."""
        self._seen.add(digest)
        self._waiting.append(digest)
        self._read = await self._batch()
        return self._read[0]

    async def more(self) -> Sequence[ClosurePath]:
        """See `Closure`."""
        read, self._read = self._read, ()
        return read or await self._batch()

    def close(self) -> None:
        """See `Closure`."""
        if not self._is_closed:
            self._is_closed = True
            self._place.release()

    async def _batch(self) -> list[ClosurePath]:
        """Read the next paths, and note which paths they refer to."""
        count = min(BATCH, len(self._waiting))
        bases = {base[:32]: base for base in (self._waiting.popleft() for _ in range(count))}
        paths: dict[str, ClosurePath] = {}
        for digest, item in (await self._among(list(bases)) if bases else {}).items():
            where = where_is(item.nar, self._is_arriving)
            paths[digest] = ClosurePath(digest, base_of(item.text), item.text, where)

        def answered(digest: str, answer: Answer) -> None:
            if isinstance(answer, ServedNarInfo) and answer.nar is not None:
                where = where_is(answer.nar, self._is_arriving)
                paths[digest] = ClosurePath(digest, base_of(answer.text), answer.text, where)
            elif not isinstance(answer, ServedNarInfo) and is_absent(answer):
                paths[digest] = ClosurePath(digest, bases[digest], b"", Where.ABSENT)

        seconds = self._ends - self._clock.seconds()
        missing = [digest for digest in bases if digest not in paths]
        if missing and self._asking is not None and seconds > 0:
            await self._asking.all(missing, answered, seconds=seconds)
        found = []
        for digest, base in bases.items():
            path = paths.get(digest) or ClosurePath(digest, base, b"", Where.UNKNOWN)
            if path.narinfo:
                self._used(digest)
                self._refer(path.narinfo)
            found.append(path)
        return found

    def _refer(self, narinfo: bytes) -> None:
        """Note the references of a path that were not seen before."""
        line = narinfo.partition(_REFERENCES)[2].partition(b"\n")[0]
        for base in line.decode("ascii").split():
            if base[:32] in self._seen:
                continue
            if len(self._seen) >= answers.MOST_PATHS:
                self._is_cut = True
                return
            self._seen.add(base[:32])
            self._waiting.append(base)
