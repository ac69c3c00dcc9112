"""Query: finds out where each of thousands of store paths is.

It reads the catalog in batches. If the client wants that, it asks the upstreams for the paths that
are not known here. It asks as for a client that requests the narinfo, so that the answers are the
same.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, TypeVar

from ncps.cache.answers import ServedNarInfo
from ncps.cache.bulk.answers import PathState, Where
from ncps.cache.bulk.asking import Answer, Asking, is_absent
from ncps.cache.narinfo.state import KnownNarInfo
from ncps.nix.narurl import NarKey
from ncps.ports import NarRecord

T = TypeVar("T")

BATCH: Final = 100
"""Paths that one call reads from the catalog."""

ASK_S: Final = 30.0
"""Seconds that a client waits for the upstreams; paths without an answer until then are UNKNOWN."""

Among = Callable[[Sequence[str]], Awaitable[dict[str, KnownNarInfo]]]
"""See `Records.among`."""


class PathQuery:
    """Answers one question about many paths.

    :param negatives: hash parts that every upstream denied a moment ago.
    :param is_arriving: whether a NAR is being downloaded.
    """

    def __init__(
        self,
        among: Among,
        negatives: Container[str],
        is_arriving: Callable[[NarKey], bool],
        asking: Asking,
    ) -> None:
        self._among = among
        self._negatives = negatives
        self._is_arriving = is_arriving
        self._asking = asking
        self._states: dict[str, PathState] = {}

    async def run(self, digests: Sequence[str], *, ask: bool) -> list[PathState]:
        """Return the state of each path. Raises Unavailable if the catalog cannot be asked."""
        self._states = dict.fromkeys(digests, PathState("", Where.UNKNOWN))
        for batch in batches(self._states, BATCH):
            found = await self._among(batch)
            for digest in batch:
                item = found.get(digest)
                if item is not None:
                    self._states[digest] = self._state(
                        digest, item.nar, item.text, item.upstream_name
                    )
                else:
                    where = Where.ABSENT if digest in self._negatives else Where.UNKNOWN
                    self._states[digest] = PathState(digest, where)
        if ask:
            unknown = [d for d, state in self._states.items() if state.where is Where.UNKNOWN]
            await self._asking.all(unknown, self._answered, seconds=ASK_S)
        return list(self._states.values())

    def _answered(self, digest: str, answer: Answer) -> None:
        if isinstance(answer, ServedNarInfo) and answer.nar is not None:
            self._states[digest] = self._state(digest, answer.nar, answer.text, answer.upstream)
        elif not isinstance(answer, ServedNarInfo) and is_absent(answer):
            self._states[digest] = PathState(digest, Where.ABSENT)

    def _state(self, digest: str, nar: NarRecord, text: bytes, upstream: str) -> PathState:
        return PathState(
            digest=digest,
            where=where_is(nar, self._is_arriving),
            base=base_of(text),
            upstream=upstream,
            nar_size=nar.nar_size,
            file_size=nar.file_size,
        )


def where_is(nar: NarRecord, is_arriving: Callable[[NarKey], bool]) -> Where:
    """Return where a NAR is whose narinfo may be shown."""
    if nar.is_stored:
        return Where.STORED
    return Where.ARRIVING if is_arriving(nar.key) else Where.UPSTREAM


def base_of(narinfo: bytes) -> str:
    """Return the base name of the store path of a rendered narinfo."""
    line = narinfo.partition(b"\n")[0]  # StorePath comes first
    return line.rpartition(b"/")[2].decode("ascii")


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Divide items into lists of at most `size`."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
