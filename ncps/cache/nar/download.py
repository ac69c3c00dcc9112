"""Download: one NAR on its way from upstreams into the store, with its readers following it.

The job belongs to the cache, not to a request: readers come and go (D5). It goes round through the
sources, attempt after attempt (`ncps.cache.nar.attempt`), until one has arrived or hope is gone. A
reader that has had no byte of an attempt that was wrong follows the next one; the others break off.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing

from attrs import frozen
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ncps.aio.spool import Spool
from ncps.aio.waiting import Future
from ncps.ask.pace import TooSlow
from ncps.ask.policy import verdict
from ncps.cache.nar import judge
from ncps.cache.nar.attempt import Attempt, NewSpool, Terms
from ncps.cache.nar.follow import DownloadReader, Superseded
from ncps.cache.nar.judge import Arrived, Disputed, WrongBytes
from ncps.cache.nar.patience import Patience
from ncps.cache.nar.sources import Source, Supply
from ncps.errors import Corrupt, NcpsError, NotFound, Unavailable
from ncps.nix.hashes import Hash
from ncps.ports import Body, UpstreamBody

MAX_RESTARTS = 3
"""How often wrong bytes are fetched anew within one download."""


@frozen(kw_only=True)
class DownloadEvents:
    """What a download tells its owner.

    :param hopeless: awaited with the verdict that nobody has the file as it was said to be, before
        any reader is told.
    :param tasted: told True when clients have had some of the bytes, False when these were wrong.
    :param found_wrong: awaited with the hash of a file that is the one of the narinfo, and holds
        another NAR.
    """

    hopeless: Callable[[NcpsError], Awaitable[None]]
    found_wrong: Callable[[Hash], Awaitable[None]]
    tasted: Callable[[bool], object] = lambda _: None


class Download:
    """One job and its readers.

    :param patience_s: how long no byte may come, in mid-file, before the download is given up.
    :ivar sources: where it gets its bytes from.
    :ivar arrived: the file's size, once all of it is here and right.
    :ivar has_failed: whether it is of no use to join any more; set before anybody hears of it.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        terms: Terms,
        sources: Supply,
        new_spool: NewSpool,
        patience_s: float,
        events: DownloadEvents,
    ) -> None:
        self.key = terms.key
        self.arrived: Future[int] = Future()
        self.has_failed = False
        self.sources = sources
        self._clock = clock
        self._terms = terms
        self._new_spool = new_spool
        self._patience_s = patience_s
        self._events = events
        self._attempt = Attempt(terms, sources, new_spool)
        self._opener: Source | None = None
        self._distrusted: dict[str, Corrupt] = {}
        self._suspects: set[str] = set()
        self._disputed = ""
        self._restarts = 0

    # The readers' side

    @property
    def opener(self) -> Source | None:
        """The source that opened the spool there is, or the last one before it."""
        return self._attempt.opener or self._opener

    @property
    def upstream(self) -> str:
        """Name of that source; empty before the first head."""
        return "" if self.opener is None else self.opener.name

    @property
    def file(self) -> str:
        """Names the file in the spool; see `sources.Source`."""
        return "" if self.opener is None else self.opener.file

    @property
    def origin(self) -> tuple[str, str] | None:
        """Where the bytes came from; see there, too."""
        return None if self.opener is None else self.opener.origin

    @property
    def size(self) -> int | None:
        """Bytes in all, if known by now."""
        return self._attempt.size

    @property
    def sure_size(self) -> int | None:
        """Bytes in all, as the verdict has it, or as NarSize says, which is signed."""
        is_sure = self._terms.is_uncompressed or (self.arrived.is_set and not self.has_failed)
        return self.size if is_sure else None

    async def opened(self) -> None:
        """Wait for the head of an upstream's answer; raises what the job came to."""
        await self._attempt.opened.wait()

    async def reader(self, start: int = 0, stop: int | None = None) -> Body:
        """Follow the bytes from `start` to `stop`, from the first head on.

        Raises what the job came to; Overtaken if bytes have passed without being kept.
        """
        spool = await self._attempt.opened.wait()
        return DownloadReader(self, spool.reader(start, stop), start, stop)

    def tasted(self) -> None:
        """Note that a client has had bytes."""
        self._attempt.is_tasted = True
        self._events.tasted(True)

    # The job

    async def run(self) -> Arrived:
        """Fetch the whole. The spool is committed on return."""
        try:
            arrived = await self._fetch()
        except CancelledError:
            self.give_up(Unavailable("the daemon is stopping"))
            raise
        except (NotFound, Corrupt) as error:
            try:
                await self._events.hopeless(error)
            finally:
                self.give_up(error)
            raise
        except BaseException as error:
            self.give_up(error)
            raise
        self.arrived.succeed(arrived.verdict.size)
        return arrived

    def give_up(self, error: BaseException) -> None:
        """Let everybody who still waits for this download raise an error; idempotent."""
        self.has_failed = self.has_failed or not self.arrived.is_set
        spool = self._attempt.spool
        if spool is not None and not self.arrived.is_set:
            spool.fail(error)
            spool.release()
        self._attempt.opened.fail(error)
        self.arrived.fail(error)

    async def _fetch(self) -> Arrived:
        """Go round through the sources until the whole is here or hope is gone."""
        patience = Patience(self._clock, self._patience_s)
        while True:
            before = self._attempt.length, self._restarts
            self.sources.failures.clear()
            each = self.sources.each(self._distrusted, self._suspects)
            async with aclosing(each) as sources:
                async for source in sources:
                    arrived = None if self._is_too_late(source) else await self._exhaust(source)
                    if arrived is not None:
                        return arrived
            failures = self.sources.failures | self._distrusted
            if self._disputed:
                arrived = await self._settle()
                if arrived is not None:
                    return arrived
                continue
            if (self._attempt.length, self._restarts) != before:
                patience.renew()
            if self._restarts != before[1]:
                continue  # who had a part in wrong bytes may do better alone
            is_hopeless = not any(isinstance(error, Unavailable) for error in failures.values())
            if is_hopeless or patience.has_ended(has_bytes=self._attempt.length > 0):
                raise verdict(failures, self.key.file_name)
            await patience.pause()

    def _is_too_late(self, source: Source) -> bool:
        """Whether a source has another file of the NAR, and clients have bytes of this one."""
        attempt = self._attempt
        return attempt.is_tasted and attempt.is_other(source) and source.is_other_file

    async def _exhaust(self, source: Source) -> Arrived | None:
        """Take what one source gives, again and again as long as it adds something."""
        while True:
            before = self._attempt.length
            offset = 0 if self._attempt.is_other(source) else before
            try:
                source, body = await self.sources.open(
                    source, offset, allow_encoding=self._terms.is_uncompressed
                )
                return await self._judge(await self._take(source, body, offset))
            except (NotFound, Unavailable, Corrupt) as error:
                spool = self._attempt.spool
                if spool is not None and spool.error is error:
                    raise  # the trouble is ours: no source can help
                self._failed(source, error)
                is_worth_it = isinstance(error, Unavailable) and not isinstance(error, TooSlow)
                if not is_worth_it or self._attempt.length <= before:
                    return None

    async def _take(self, source: Source, body: UpstreamBody, offset: int) -> Spool:
        """Have the attempt take what a source sends; another one for another file."""
        try:
            if self._attempt.is_other(source):
                self._begin_anew(f"{source.name} has another file of the same NAR")
            if source.is_other_file:
                self._attempt.relax(f"there is only another file of it, at {source.name}")
            return await self._attempt.take(source, body, offset)
        finally:
            body.close()

    def _failed(self, source: Source, error: NcpsError) -> None:
        """Draw the consequences of how a source has failed."""
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
        elif not self._attempt.length and self.size != self._attempt.judge.size:
            self._begin_anew(str(error), cost=0)  # an answer's word, and no byte

    def _note(self, source: Source, error: NcpsError) -> None:
        self.sources.failed(source, error)
        text = "upstream {upstream} failed for {what} at byte {offset}: {reason}"
        offset, reason = self._attempt.length, str(error)
        what = self.key.file_name
        self._log.warn(text, upstream=source.name, what=what, offset=offset, reason=reason)

    async def _judge(self, spool: Spool) -> Arrived:
        """Have a spool judged, and commit it. Raises WrongBytes."""
        try:
            judgement = await self._attempt.judge.examine(spool)
        except judge.WrongNar as error:
            await self._events.found_wrong(error.file_hash)
            raise WrongBytes(str(error)) from error
        except Corrupt as error:
            raise WrongBytes(str(error)) from error
        if complaint := self._terms.complaint(judgement):
            self.sources.lied(complaint)
        spool.commit()
        return Arrived(spool, judgement)

    async def _settle(self) -> Arrived | None:
        """After nobody had a file of the size that was told: let the NAR decide."""
        reason, self._disputed = self._disputed, ""
        author, attempt = self.upstream, self._attempt
        if attempt.spool is not None:
            try:
                return await self._judge(attempt.spool)
            except WrongBytes as error:
                if attempt.judge.size is None and not attempt.dispute.is_refuted:
                    return None
                self._begin_anew(str(error))
        if self._attempt.judge.size is not None:
            self._attempt.relax(reason)
        self._distrusted.clear()
        self._suspects = {author}
        return None

    def _start_over(self, name: str, error: WrongBytes) -> None:
        """Drop the spool; shun the source if all of the wrong bytes were its own.

        Where several had a part in it, the last one is to show what it has on its own, first.
        """
        attempt = self._attempt
        if attempt.contributors == {name}:
            self._distrusted[name] = error
        self._suspects = attempt.contributors - {name}
        if attempt.is_tasted:  # of what no client can go on with
            self._events.tasted(False)
        self._begin_anew(str(error))

    def _begin_anew(self, reason: str, *, cost: int = 1) -> None:
        """Make another attempt; readers that have had no byte follow.

        Raises Corrupt if that was too often.
        """
        self._restarts += cost
        if cost and self._restarts > MAX_RESTARTS:
            raise Corrupt(reason)
        old, self._opener = self._attempt, self.opener
        self._attempt = Attempt(
            self._terms, self.sources, self._new_spool, is_confirmed=old.is_confirmed
        )
        assert old.spool is not None
        old.spool.fail(Superseded(reason))
        old.spool.release()
