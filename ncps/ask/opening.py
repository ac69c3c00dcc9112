"""Opening: requests a NAR from an upstream, and watches the answer up to the last byte.

The head may take long, because some upstreams fetch a NAR, or build the file, before they send its
first byte. Such an upstream answers other requests immediately. So there are two deadlines: a short
one of queries, which detects an upstream that answers nothing, and a long one for the NAR itself.
While a head is overdue, the upstream is asked for its nix-cache-info at intervals, unless it has
answered another request since then. If the head is late and other upstreams have the file, a hedge
opens the file at a second one, too.

The bytes may also arrive too slowly. The deadlines do not detect such a source, because a byte
arrives from time to time. If another source has the file, the download leaves the slow one and
continues there from the byte it has. Without another source, the slow one continues.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Final, Generic, Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ncps.aio.backoff import EXACT, Backoff
from ncps.aio.body import PassedBody
from ncps.aio.guess import Guess, is_unwanted
from ncps.aio.guess import current as current_guess
from ncps.aio.race import Race
from ncps.aio.tasks import Tasks
from ncps.aio.waiting import sleep
from ncps.ask.health import SLOWEST_HEDGE_S, Candidate, Health
from ncps.errors import Busy, Corrupt, NcpsError, NotFound, Unavailable, Unconfirmed
from ncps.observe.tracing.spans import current
from ncps.ports import Upstream, UpstreamBody
from ncps.settings.schema.upstream import UpstreamsSettings

BUSY_S: Final = 1.0
"""Seconds that a head may take while the upstream answers other requests."""

LOOKS: Final = Backoff(first_s=1.0, longest_s=8.0, jitter=EXACT)
"""Pauses between looks at an upstream whose head is overdue."""

_SILENT: Final = frozenset({"connect", "timeout"})


class Late(Busy):
    """The deadline of one NAR has passed, while its upstream has answered other requests."""


class TooSlow(Unavailable):
    """A slow source was left, because another one continues; do not ask it again immediately."""


async def open_watched(
    candidate: Candidate,
    clock: IReactorTime,
    opening: Callable[[Upstream], Coroutine[Any, Any, UpstreamBody]],
    is_wanted: Callable[[], bool],
) -> UpstreamBody:
    """Open a NAR at an upstream; note in its health how the answer goes, up to the body's end.

    Raises Late if the deadline passes while the upstream answers other requests, Unavailable with
    `timed_out` if it answers nothing at all, else the errors of `opening`.

    :param is_wanted: whether the NAR is still wanted from this upstream. If not, the request is
        cancelled when the upstream has answered something.
    """
    head, health = _Head(candidate, clock, is_wanted), candidate.health
    health.fetching()
    try:
        body = await candidate.ask(lambda upstream: head.wait(opening(upstream)), clock)
    except BaseException:
        health.let_go()
        raise
    watch = _Watch(health)
    return PassedBody.over(body, watch.chunks(body), watch.closed)


class _Head:
    """Waits for the head of one NAR; see `open_watched`."""

    def __init__(
        self, candidate: Candidate, clock: IReactorTime, is_wanted: Callable[[], bool]
    ) -> None:
        self._candidate = candidate
        self._clock = clock
        self._is_wanted = is_wanted
        self._silence: Unavailable | None = None

    async def wait(self, opening: Coroutine[Any, Any, UpstreamBody]) -> UpstreamBody:
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
        """Cancel the request if the upstream answers nothing, or works and is no longer wanted."""
        for pause_s in LOOKS.pauses():
            since = self._clock.seconds()
            await sleep(self._clock, pause_s)
            if self._candidate.health.answered_at <= since:
                self._silence = await self._asked()
            if self._silence is not None or not self._is_wanted():
                request.cancel()
                return

    async def _asked(self) -> Unavailable | None:
        """Ask for the nix-cache-info; return the error if the upstream does not answer."""
        try:
            await self._candidate.ask(lambda upstream: upstream.cache_info(), self._clock)
        except (NotFound, Corrupt, Busy):
            return None
        except Unavailable as error:
            if error.kind not in _SILENT:
                return None
            return Unavailable(f"answers nothing: {error}", timed_out=error.timed_out)
        return None


class _Watch:
    """Notes the end of one body in the health, once."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._is_noted = False

    async def chunks(self, body: UpstreamBody) -> AsyncIterator[bytes]:
        position = body.start
        try:
            async for chunk in body:
                position += len(chunk)
                yield chunk
        except Unconfirmed:
            raise
        except Unavailable as error:
            # No failure if the connection broke after the last byte, or if no client waited.
            if position != body.total and not is_unwanted():
                self._health.failed(str(error), error.retry_after)
                if error.timed_out:
                    self._is_noted = True
                    self._health.stalled(str(error))
            raise
        self._is_noted = True
        self._health.delivered()

    def closed(self) -> None:
        if not self._is_noted:
            self._is_noted = True
            self._health.let_go()


def is_kept(pace: UpstreamsSettings, count: int, waited_s: float) -> bool:
    """Return whether `count` bytes are enough for `waited_s` seconds of waiting."""
    return count >= pace.min_receive_rate_bytes * waited_s


def paced(
    body: UpstreamBody,
    clock: IReactorTime,
    pace: UpstreamsSettings,
    leave: Callable[[str], Awaitable[bool]],
) -> UpstreamBody:
    """Return a body that passes on another one, and raises TooSlow if that is too slow.

    The deadlines of the connection handle an upstream that sends nothing at all.

    :param leave: awaited after each window in which the body was too slow; returns whether to leave
        the source.
    """

    async def chunks() -> AsyncIterator[bytes]:
        count, waited_s, since = 0, 0.0, clock.seconds()
        async for chunk in body:
            count += len(chunk)
            waited_s += clock.seconds() - since
            yield chunk
            if waited_s >= pace.min_receive_window_s:
                reason = f"sent {count} bytes in {waited_s:.0f} s"
                if not is_kept(pace, count, waited_s) and await leave(reason):
                    raise TooSlow(reason, timed_out=True)
                count, waited_s = 0, 0.0
            since = clock.seconds()

    return PassedBody.over(body, chunks(), lambda: None)


class Opener(Protocol):
    """A source that may have the bytes."""

    @property
    def name(self) -> str:
        """Its name in logs."""

    @property
    def url(self) -> str:
        """The URL of the bytes there."""

    @property
    def health(self) -> Health:
        """The health of the upstream that is asked."""

    async def open(
        self, offset: int, *, allow_encoding: bool, is_wanted: Callable[[], bool]
    ) -> UpstreamBody:
        """See `sources.UpstreamSource`."""


O = TypeVar("O", bound=Opener)  # noqa: E741 - an opener


class Hedge(Generic[O]):
    """One hedged opening of a NAR.

    The first good head wins. The other request continues until it shows whether its upstream works,
    and a body that arrives too late is closed. A second transfer is expensive. So if an upstream
    has answered another request since then, it is only busy, and the hedge waits for it longer.

    :param first: the first source to ask; its error is raised if no source has a body.
    :param rivals: other sources that may be asked, found as needed.
    :param failed: called with each failure of a rival, also with one that comes too late.
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
        self._guess: Guess | None = current_guess()
        self._race = Race(tasks, self._open, self._lost, lambda body: body.close())

    async def open(self, offset: int, *, allow_encoding: bool) -> tuple[O, UpstreamBody]:
        """Return the source of the first good head, and its body.

        Raises the error of the first source if no source has a body.
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
        is_guess = self._guess is not None and not self._guess.is_wanted
        if opener.health.answered_at <= since and not is_guess:
            opener.health.suspect()
        self._search()

    def _search(self) -> None:
        self._searches += 1
        self._race.start("find another upstream", self._find_rival())

    async def _find_rival(self) -> None:
        """Ask the next rival; do nothing while another search for one runs."""
        try:
            if self._is_finding:
                return
            self._is_finding = True
            async for rival in self._rivals:
                if not self._race.is_over:
                    tell = self._log.debug if is_unwanted() else self._log.info
                    tell(
                        "upstream {upstream} is late with {what}; {rival} is asked, too",
                        upstream=self._first.name,
                        what=self._first.url,
                        rival=rival.name,
                        url=rival.url,
                    )
                    current().event(
                        "hedge", {"ncps.upstream": rival.name, "ncps.late": self._first.name}
                    )
                    self._begin(rival)
                break
            self._is_finding = False
        except Unavailable:  # a fault of ours: failing rivals are passed over
            pass
        finally:
            self._searches -= 1
            self._conclude()

    def _lost(self, opener: O, error: NcpsError) -> None:
        if opener is self._first and not self._race.is_over:
            self._error = error  # the caller of `open` notes it
        else:
            self._failed(opener, error)
            if not self._race.is_over:  # the first source may still take long
                self._search()
        self._conclude()

    def _conclude(self) -> None:
        if not self._searches and not self._race.running and self._error is not None:
            self._race.end(self._error)
