"""Asking: asks for many narinfos, a number at the same time, until a deadline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Final

from twisted.internet.defer import CancelledError, Deferred, FirstError, gatherResults
from twisted.internet.interfaces import IReactorTime

from ncps.cache.answers import ServedNarInfo
from ncps.errors import NcpsError, NotFound

AT_ONCE: Final = 32
"""Narinfos that one question asks for at the same time."""

Answer = ServedNarInfo | NcpsError


class Asking:
    """Asks for narinfos as a client does, so that each answer is verified, recorded and shared.

    :param narinfo: see `Cache.narinfo`.
    """

    def __init__(
        self, clock: IReactorTime, narinfo: Callable[[str], Awaitable[ServedNarInfo]]
    ) -> None:
        self._clock = clock
        self._narinfo = narinfo

    async def all(
        self, digests: Iterable[str], answered: Callable[[str, Answer], object], *, seconds: float
    ) -> None:
        """Ask for all narinfos; call `answered` with each answer that comes in time.

        The search for a narinfo belongs to the cache: it goes on after the deadline, and after the
        client has left.
        """
        waiting = iter(digests)
        workers = [Deferred.fromCoroutine(self._work(waiting, answered)) for _ in range(AT_ONCE)]
        late = self._clock.callLater(seconds, _cancel_all, workers)
        try:
            await gatherResults(workers, consumeErrors=True)
        except FirstError as error:
            is_late = not late.active() and error.subFailure.check(CancelledError) is not None
            if not is_late:  # the client has left, or there is a fault of ours
                error.subFailure.raiseException()
        finally:
            if late.active():
                late.cancel()
            _cancel_all(workers)

    async def _work(
        self, waiting: Iterator[str], answered: Callable[[str, Answer], object]
    ) -> None:
        for digest in waiting:
            try:
                answer: Answer = await self._narinfo(digest)
            except NcpsError as error:
                answer = error
            answered(digest, answer)


def _cancel_all(workers: Iterable[Deferred[None]]) -> None:
    for worker in workers:
        worker.cancel()


def is_absent(answer: Answer) -> bool:
    """Return whether an answer says that each upstream has denied the path for sure."""
    return isinstance(answer, NotFound) and answer.is_certain
