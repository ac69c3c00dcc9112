"""A core that answers questions about many paths as it is told."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred

from ncps.cache.bulk.answers import Bulk, Closure, ClosurePath, PathState, Where
from ncps.errors import NcpsError

Step = Sequence[ClosurePath] | NcpsError | Deferred[None]
"""Of a closure: paths to return, an error to raise, something to wait for."""


class StubClosure(Closure):
    """Returns its steps in order."""

    def __init__(self, steps: Sequence[Step], *, is_cut: bool = False) -> None:
        self._steps = list(steps)
        self._is_cut = is_cut
        self.closed = 0

    @property
    def is_cut(self) -> bool:
        return self._is_cut

    async def more(self) -> Sequence[ClosurePath]:
        while self._steps:
            step = self._steps.pop(0)
            if isinstance(step, NcpsError):
                raise step
            if not isinstance(step, Deferred):
                return step
            await step
        return ()

    def close(self) -> None:
        self.closed += 1


class StubBulk(Bulk):
    """Says of every path what `states` has, else UNKNOWN.

    :ivar asked: the questions, each with whether upstreams were to be asked.
    :ivar next_closure: the next closure, or the error in its place.
    """

    def __init__(self) -> None:
        self.states: dict[str, PathState] = {}
        self.failing: NcpsError | None = None
        self.asked: list[tuple[list[str], bool]] = []
        self.next_closure: StubClosure | NcpsError = StubClosure([])

    async def query(self, digests: Sequence[str], *, ask: bool) -> list[PathState]:
        self.asked.append((list(digests), ask))
        if self.failing is not None:
            raise self.failing
        return [self.states.get(each) or PathState(each, Where.UNKNOWN) for each in digests]

    async def closure(self, digest: str, *, fetch: bool) -> Closure:
        self.asked.append(([digest], fetch))
        if isinstance(self.next_closure, NcpsError):
            raise self.next_closure
        return self.next_closure
