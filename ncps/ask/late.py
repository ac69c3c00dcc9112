"""Late: the head of a NAR that is long in coming, from an upstream that may be well.

Some upstreams fetch a NAR, or put it together, before its first byte. Such a one answers other
requests at once. So there are two deadlines: that of queries, by which an upstream that answers
nothing is found out, and a long one for the NAR itself. While a head is overdue the upstream is
asked for its nix-cache-info now and then, unless it has answered something else meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from ncps.aio.backoff import EXACT, Backoff
from ncps.ask.choose import Candidate
from ncps.errors import Busy, Corrupt, NotFound, Unavailable
from ncps.ports import UpstreamBody

LOOKS: Final = Backoff(first_s=1.0, longest_s=8.0, jitter=EXACT)
"""Pauses between looks at an upstream whose head is overdue."""

_SILENT: Final = frozenset({"connect", "timeout"})


class Late(Busy):
    """Our patience with one NAR has ended; its upstream has answered other requests."""


class LateHead:
    """Waits for the head of one NAR.

    :param is_wanted: whether the NAR is still wanted from this upstream. Where it is not, the
        request is called off as soon as the upstream is known to be well.
    """

    def __init__(
        self, candidate: Candidate, clock: IReactorTime, is_wanted: Callable[[], bool]
    ) -> None:
        self._candidate = candidate
        self._clock = clock
        self._is_wanted = is_wanted
        self._silence: Unavailable | None = None

    async def wait(self, opening: Coroutine[Any, Any, UpstreamBody]) -> UpstreamBody:
        """Return the body. Errors are those of `opening`; Late: see there.

        Unavailable, with `timed_out`: the upstream answers nothing at all.
        """
        began = self._clock.seconds()
        request = Deferred.fromCoroutine(opening)
        watch = Deferred.fromCoroutine(self._watch(request))
        watch.addErrback(lambda failure: failure.trap(CancelledError))
        try:
            return await request
        except CancelledError:
            if self._silence is not None:
                raise self._silence from None
            raise
        except Unavailable as error:
            if error.timed_out and self._candidate.health.answered_at > began:
                raise Late(str(error), timed_out=True) from error
            raise
        finally:
            watch.cancel()

    async def _watch(self, request: Deferred[UpstreamBody]) -> None:
        """Call the request off when the upstream is silent, or well and not wanted any more."""
        for pause_s in LOOKS.pauses():
            since = self._clock.seconds()
            await deferLater(self._clock, pause_s)
            if self._candidate.health.answered_at <= since:
                self._silence = await self._asked()
            if self._silence is not None or not self._is_wanted():
                request.cancel()
                return

    async def _asked(self) -> Unavailable | None:
        """Ask for something small; return the error if nothing answers."""
        try:
            await self._candidate.ask(lambda upstream: upstream.cache_info(), self._clock)
        except (NotFound, Corrupt, Busy):
            return None
        except Unavailable as error:
            if error.kind not in _SILENT:
                return None
            return Unavailable(f"answers nothing: {error}", timed_out=error.timed_out)
        return None
