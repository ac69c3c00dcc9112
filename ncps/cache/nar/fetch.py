"""Fetch: the job of one download. It asks the sources, round after round, until the file is here.

The job belongs to the cache, not to a request (D5). It makes attempts (`ncps.cache.nar.attempt`)
until one of them has the right file, or no source can have it.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Final

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ncps.aio.guess import is_unwanted
from ncps.aio.waiting import sleep
from ncps.ask.opening import TooSlow
from ncps.ask.policy import verdict
from ncps.cache.nar.attempt import Arrived, Attempt, TooLargeToGuess
from ncps.cache.nar.download import Download
from ncps.cache.nar.sources import Rounds, Source
from ncps.errors import Corrupt, NcpsError, NotFound, Unavailable
from ncps.nix.judge import Disputed, WrongBytes, WrongNar
from ncps.observe.decisions import are_logged
from ncps.ports import UpstreamBody

MAX_RESTARTS: Final = 3
"""Within one download, wrong bytes are fetched anew this many times, at most."""

PAUSES_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Waits between rounds through all sources; the last one repeats."""

OPENING_ROUNDS: Final = 2
"""Rounds after which a download without a byte is given up: its clients still wait for a status."""

OPENING_S: Final = 30.0
"""Seconds after which no further round begins for such a download."""

_log = Logger()


class Patience:
    """How long a download goes on asking while no byte arrives.

    :param resume_s: a download with some bytes is given up after this many seconds without another.
    """

    def __init__(self, clock: IReactorTime, resume_s: float) -> None:
        self._clock = clock
        self._resume_s = resume_s
        self._rounds = 0
        self._since = clock.seconds()

    def renew(self) -> None:
        """Start the count again, because the last round has brought bytes."""
        self._rounds = -1
        self._since = self._clock.seconds()

    def has_ended(self, *, has_bytes: bool) -> bool:
        """Count a finished round; return whether it was the last one."""
        self._rounds += 1
        waited_s = self._clock.seconds() - self._since
        if self._rounds < OPENING_ROUNDS and waited_s < OPENING_S:
            return False
        return waited_s >= self._resume_s or not has_bytes

    async def pause(self) -> None:
        """Wait before the next round, longer each time."""
        await sleep(self._clock, PAUSES_S[min(max(self._rounds, 0), len(PAUSES_S) - 1)])


class Fetch:
    """The loop over attempts.

    :param rounds: gives the sources, round after round.
    :param patience_s: seconds without a byte, in mid-file, after which the download is given up.
    """

    def __init__(
        self, clock: IReactorTime, download: Download, rounds: Rounds, patience_s: float
    ) -> None:
        self._clock = clock
        self._download = download
        self._sources = download.sources
        self._terms = download.terms
        self._events = download.events
        self._rounds = rounds
        self._patience_s = patience_s
        self._distrusted: dict[str, Corrupt] = {}
        self._suspects: set[str] = set()
        self._disputed = ""
        self._restarts = 0

    @property
    def _attempt(self) -> Attempt:
        return self._download.attempt

    async def run(self) -> Arrived:
        """Fetch the whole file. The spool is committed on return."""
        download = self._download
        try:
            arrived = await self._fetch()
        except CancelledError:
            raise  # the owner of the download gives it up
        except (NotFound, Corrupt) as error:
            download.has_failed = True  # a client that comes now may need another file
            try:
                await self._events.hopeless(error)
            finally:
                download.give_up(error)
            raise
        except BaseException as error:
            download.give_up(error)
            raise
        download.arrived.succeed(arrived.verdict.size)
        return arrived

    async def _fetch(self) -> Arrived:
        """Ask the sources, round after round, until the file is here or no source can have it."""
        patience = Patience(self._clock, self._patience_s)
        while True:
            before = self._attempt.length, self._restarts
            self._sources.failures.clear()
            arrived = await self._go_round()
            if arrived is not None:
                return arrived
            failures = self._sources.failures | self._distrusted
            if self._disputed:
                arrived = await self._settle()
                if arrived is not None:
                    return arrived
                continue
            if (self._attempt.length, self._restarts) != before:
                patience.renew()
            if self._restarts != before[1]:
                continue  # a source with a part in wrong bytes may have the right file alone
            is_hopeless = not any(isinstance(error, Unavailable) for error in failures.values())
            if is_hopeless or patience.has_ended(has_bytes=self._attempt.length > 0):
                raise verdict(failures, self._download.key.file_name)
            await patience.pause()

    async def _go_round(self) -> Arrived | None:
        """Ask each source once; return None if the file is not here after that."""
        async with aclosing(self._rounds(self._distrusted, self._suspects)) as sources:
            async for source in sources:
                arrived = None if self._is_too_late(source) else await self._exhaust(source)
                if arrived is not None:
                    return arrived
        return None

    def _is_too_late(self, source: Source) -> bool:
        """Return whether clients have bytes of the spool, and a source has another file."""
        attempt = self._attempt
        return attempt.is_partly_sent and attempt.is_other(source) and source.is_other_file

    async def _exhaust(self, source: Source) -> Arrived | None:
        """Take the bytes of one source; ask it again as long as each answer adds bytes."""
        while True:
            before = self._attempt.length
            offset = self._attempt.offset_of(source)
            try:
                if are_logged():
                    _log.debug(
                        "download of {key}: {upstream} is asked from byte {offset} on",
                        key=self._download.key.file_name,
                        upstream=source.name,
                        offset=offset,
                    )
                source, body = await self._sources.open(
                    source, offset, allow_encoding=self._terms.is_uncompressed
                )
                await self._take(source, body, offset)
                return await self._attempt.judged()
            except (NotFound, Unavailable, Corrupt) as error:
                spool = self._attempt.spool
                is_ours = spool is not None and spool.error is error
                if is_ours or isinstance(error, TooLargeToGuess):
                    raise  # no source can help
                await self._learn(error)
                self._failed(source, error)
                is_worth_it = isinstance(error, Unavailable) and not isinstance(error, TooSlow)
                if not is_worth_it or self._attempt.length <= before:
                    return None

    async def _take(self, source: Source, body: UpstreamBody, offset: int) -> None:
        """Let the attempt take the body of a source; begin another attempt for another file."""
        try:
            if self._attempt.is_other(source):
                self._begin_anew(f"{source.name} has another file of the same NAR")
            if source.is_other_file:
                await self._sources.chose(source)
                self._attempt.relax(f"there is only another file of it, at {source.name}")
            await self._attempt.take(source, body, offset)
        finally:
            body.close()

    async def _learn(self, error: NcpsError) -> None:
        """Tell the owner about a file that has another NAR inside."""
        if isinstance(error, WrongNar):
            await self._events.found_wrong(error)

    def _failed(self, source: Source, error: NcpsError) -> None:
        """Decide how to go on after a source has failed."""
        attempt = self._attempt
        self._disputed = attempt.disputed or self._disputed
        if isinstance(error, WrongBytes) and self._terms.false_word:
            error = WrongBytes(f"{self._terms.false_word}; {error}")
        self._note(source, error)
        if isinstance(error, WrongBytes):
            self._start_over(source.name, error)
        elif isinstance(error, Corrupt):
            self._distrusted[source.name] = error
        if isinstance(error, Disputed):
            self._disputed = str(error)
        elif not self._attempt.length and self._attempt.size != self._attempt.judge.size:
            self._begin_anew(str(error), cost=0)  # a size was wrong, and no byte arrived

    def _note(self, source: Source, error: NcpsError) -> None:
        self._sources.failed(source, error)
        _tell_failure(self._download, source, error)

    async def _settle(self) -> Arrived | None:
        """Let the NAR inside decide, because no source had a file of the size in the narinfo."""
        reason, self._disputed = self._disputed, ""
        author, attempt = self._download.upstream, self._attempt
        if attempt.spool is not None:
            try:
                return await attempt.judged()
            except WrongBytes as error:
                await self._learn(error)
                if attempt.judge.size is None and not attempt.dispute.is_refuted:
                    return None
                self._begin_anew(str(error))
        if self._attempt.judge.size is not None:
            self._attempt.relax(reason)
        self._distrusted.clear()
        self._suspects = {author}
        return None

    def _start_over(self, name: str, error: WrongBytes) -> None:
        """Drop the spool; shun the source if it alone sent the wrong bytes.

        If several sources sent them, the last one is asked for the whole file, before the others.
        """
        attempt = self._attempt
        if attempt.contributors == {name}:
            self._distrusted[name] = error
        self._suspects = attempt.contributors - {name}
        if attempt.is_partly_sent:  # no client can go on with these bytes
            self._events.sent(False)
        self._begin_anew(str(error))

    def _begin_anew(self, reason: str, *, cost: int = 1) -> None:
        """Make another attempt. Raises Corrupt after more than `MAX_RESTARTS` restarts.

        :param cost: number of restarts that this one counts for.
        """
        self._restarts += cost
        if cost and self._restarts > MAX_RESTARTS:
            raise Corrupt(reason)
        self._download.begin_anew(reason)


def _tell_failure(download: Download, source: Source, error: NcpsError) -> None:
    """Note the failure of a source in the span of a download, and log it."""
    offset = download.attempt.length
    download.span.event(
        "upstream failed",
        {
            "ncps.upstream": source.name,
            "ncps.offset": offset,
            "error.type": type(error).__name__,
        },
    )
    # The warning at the end of the download names the upstreams that do not have it.
    tell = _log.debug if isinstance(error, NotFound) or is_unwanted() else _log.warn
    tell(
        "upstream {upstream} failed for {what} at byte {offset}: {reason}",
        upstream=source.name,
        what=download.key.file_name,
        offset=offset,
        reason=str(error),
    )
