"""Hedge: a NAR asked for at one upstream, and at another one too when the first is late.

The first good head wins. Losers run on until it is known whether their upstream is well, which is
how a silent one is found out; a body that comes too late is closed. A second transfer is dear, so
an upstream that meanwhile has answered something else is only busy, and is waited for longer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Generic, Protocol, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ncps.aio.tasks import Tasks
from ncps.ask.health import SLOWEST_HEDGE_S, Health
from ncps.ask.race import Race
from ncps.errors import NcpsError, Unavailable
from ncps.ports import UpstreamBody

BUSY_S = 1.0
"""How long a head may take where other answers come."""


class Opener(Protocol):
    """Somebody who may have the bytes."""

    @property
    def name(self) -> str:
        """For logs."""

    @property
    def url(self) -> str:
        """Where the bytes are there."""

    @property
    def health(self) -> Health:
        """Of whom is asked."""

    async def open(
        self, offset: int, *, allow_encoding: bool, is_wanted: Callable[[], bool]
    ) -> UpstreamBody:
        """See `sources.UpstreamSource`."""


O = TypeVar("O", bound=Opener)  # noqa: E741 - an opener


class Hedge(Generic[O]):
    """One hedged opening.

    :param first: whose error is raised if nobody has a body.
    :param rivals: who else may be asked, found out as needed.
    :param failed: told of each failure of a rival, also of one that comes too late.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        tasks: Tasks,
        first: O,
        rivals: AsyncIterator[O],
        failed: Callable[[O, NcpsError], object],
    ) -> None:
        self._clock = clock
        self._first = first
        self._rivals = rivals
        self._failed = failed
        self._searches = 0
        self._is_finding = False
        self._error: NcpsError | None = None
        self._timer: IDelayedCall | None = None
        self._race = Race(tasks, self._open, self._lost, lambda body: body.close())

    async def open(self, offset: int, *, allow_encoding: bool) -> tuple[O, UpstreamBody]:
        """Return the first good head and whose it is.

        Raises NotFound, Unavailable or Corrupt as the first one did, if nobody has a body.
        """
        self._offset, self._allow_encoding = offset, allow_encoding
        self._begin(self._first)
        try:
            winner = await self._race.winner()
        finally:
            self._stop_timer()
        assert winner is not None
        return winner

    async def _open(self, opener: O) -> UpstreamBody:
        return await opener.open(
            self._offset,
            allow_encoding=self._allow_encoding,
            is_wanted=lambda: not self._race.is_over,
        )

    def _begin(self, opener: O) -> None:
        now = self._clock.seconds()
        self._timer = self._clock.callLater(SLOWEST_HEDGE_S, self._is_late, opener, now)
        self._race.enter(f"open a NAR at {opener.name}", opener)

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _is_late(self, opener: O, since: float) -> None:
        now = self._clock.seconds()
        if opener.health.answered_at > since and now - since < BUSY_S:
            self._timer = self._clock.callLater(SLOWEST_HEDGE_S, self._is_late, opener, since)
            return
        if opener.health.answered_at <= since:
            opener.health.suspect()
        self._search()

    def _search(self) -> None:
        self._searches += 1
        self._race.start("find another upstream", self._find_rival())

    async def _find_rival(self) -> None:
        """Ask the next rival; harmless while another one is being looked for."""
        try:
            if self._is_finding:
                return
            self._is_finding = True
            async for rival in self._rivals:
                if not self._race.is_over:
                    self._log.info(
                        "upstream {upstream} is late with {what}; {rival} is asked, too",
                        upstream=self._first.name,
                        what=self._first.url,
                        rival=rival.name,
                        url=rival.url,
                    )
                    self._begin(rival)
                break
            self._is_finding = False
        except Unavailable:  # ours: a rival that fails is passed over
            pass
        finally:
            self._searches -= 1
            self._conclude()

    def _lost(self, opener: O, error: NcpsError) -> None:
        if opener is self._first and not self._race.is_over:
            self._error = error  # the caller of `open` notes it
        else:
            self._failed(opener, error)
            if not self._race.is_over:  # the first may be long in coming
                self._search()
        self._conclude()

    def _conclude(self) -> None:
        if not self._searches and not self._race.running and self._error is not None:
            self._race.end(self._error)
