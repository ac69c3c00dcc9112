"""Download: one NAR on its way from upstreams into the store, as its readers see it.

The job is in `ncps.cache.nar.fetch`; it goes on without readers. If an attempt has wrong bytes, a
reader without a byte of it follows the next attempt, and each other reader gets an error.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from attrs import Factory, field, frozen

from ncps.aio.growing import GrowingFile
from ncps.aio.guess import current as current_guess
from ncps.aio.spool_reader import SpoolReader
from ncps.aio.waiting import Future
from ncps.cache.answers import Outcome, Resized, WrongBytesSent
from ncps.cache.nar.attempt import Attempt, NewSpool, Terms
from ncps.cache.nar.sources import Source, Sources
from ncps.errors import Corrupt, NcpsError, Unavailable
from ncps.nix.judge import WrongNar
from ncps.nix.narurl import NarKey
from ncps.observe.tracing.spans import NO_SPAN
from ncps.ports import Body, GrowingBody, Segment

T = TypeVar("T")

SENT = "wrong bytes were sent"


class Superseded(Unavailable):
    """The spool had wrong bytes; another one takes its place."""


@frozen(kw_only=True)
class DownloadEvents:
    """Callbacks to the owner of a download.

    :param hopeless: awaited with the error that no source has the file that the narinfo
        describes, before any reader gets that error.
    :param sent: called with True when a client has received bytes, with False when these bytes
        were wrong.
    :param found_wrong: awaited with the error of a file if it is the one that the narinfo names,
        but has another NAR inside.
    :param hurry: called if somebody begins to wait for the end of a download that has arrived.
    """

    hopeless: Callable[[NcpsError], Awaitable[None]]
    found_wrong: Callable[[WrongNar], Awaitable[None]]
    sent: Callable[[bool], object] = lambda _: None
    hurry: Callable[[], object] = lambda: None


class Download:
    """The current attempt, and its readers.

    :ivar attempt: the attempt that is under way, or the last one.
    :ivar arrived: the file's size, once the whole file is here and found right.
    :ivar ended: set when the job is over, also if it has failed.
    :ivar is_awaited: whether somebody waits for `ended`.
    :ivar is_disowned: whether the NAR was deleted while it arrived, so that it is not published.
    :ivar span: the span of the whole job; the spans of requests that join have links to it.
    :ivar guess: the guess that began the download; None if a client had asked for the NAR.
    :ivar has_failed: whether the job has failed; set before any reader gets the error.
    """

    def __init__(
        self, terms: Terms, sources: Sources, new_spool: NewSpool, events: DownloadEvents
    ) -> None:
        self.key = terms.key
        self.terms = terms
        self.sources = sources
        self.events = events
        self.attempt = Attempt(terms, sources, new_spool)
        self.arrived: Future[int] = Future()
        self.ended: Future[None] = Future()
        self.has_failed = False
        self.is_awaited = self.is_disowned = False
        self.span = NO_SPAN
        self.guess = current_guess()
        self._new_spool = new_spool
        self._opener: Source | None = None

    @property
    def opener(self) -> Source | None:
        """The source that opened the present spool; without one, the opener of the last spool."""
        return self.attempt.opener or self._opener

    @property
    def upstream(self) -> str:
        """Name of the opener; empty before the first head."""
        return "" if self.opener is None else self.opener.name

    @property
    def is_relayed(self) -> bool:
        """Whether another process of this cache has fetched the bytes from an upstream."""
        return self.opener is not None and self.opener.origin is None

    @property
    def file(self) -> str:
        """Name of the file in the spool; see `sources.Source`."""
        return "" if self.opener is None else self.opener.file

    @property
    def is_replaced(self) -> bool:
        """Whether the file surely differs from the narinfo's; see `Terms.is_surely_other`."""
        opener = self.opener
        if opener is None:
            return False
        return opener.is_other_file or self.terms.is_surely_other(opener.file)

    @property
    def size(self) -> int | None:
        """Bytes of the whole file, if known by now."""
        return self.attempt.size

    @property
    def sure_size(self) -> int | None:
        """Bytes of the verified file, else as NarSize says, which is signed; else None."""
        has_arrived = self.arrived.is_set and not self.has_failed
        return self.size if has_arrived else self.terms.signed_size

    def is_asked_for(self) -> None:
        """Note that a client has asked for the NAR."""
        if self.guess is not None:
            self.guess.is_wanted = True

    async def end(self) -> None:
        """Wait until the job is over; a NAR that waits for others is then stored soon."""
        self.is_awaited = True
        if self.arrived.is_set and not self.ended.is_set:
            self.events.hurry()
        await self.ended.wait()

    async def opened(self, *, is_part: bool = False) -> None:
        """Wait for the head of an upstream's answer. Raises the error of a job that failed.

        :param is_part: whether the waiting client may have a part of the file; see `refuse_part`.
        """
        was_replaced = self.is_replaced
        await self.attempt.opened.wait()
        if is_part:
            self.refuse_part(was_replaced=was_replaced)

    async def reader(self, start: int = 0, stop: int | None = None) -> GrowingBody:
        """Wait for the first head; return a Body of the bytes from `start` to `stop`.

        Raises the error of a job that failed, Overtaken if the spool no longer has these bytes, and
        as `refuse_part`.
        """
        was_replaced = self.is_replaced
        spool = await self.attempt.opened.wait()
        if _is_part(start, stop):
            self.refuse_part(was_replaced=was_replaced)
        return DownloadReader(self, spool, start, stop)

    def refuse_part(self, *, was_replaced: bool) -> None:
        """Raise Unavailable if another file has just replaced the file that the client began.

        Another process, or this one before a restart, may have sent the first part.

        :param was_replaced: whether the file was another one already when the client began to wait.
        """
        if self.is_replaced and not was_replaced:
            raise Unavailable(f"{self.key.file_name} is another file now than before")

    def note_sent(self) -> None:
        """Note that a client has received bytes."""
        self.attempt.is_partly_sent = True
        self.events.sent(True)

    def give_up(self, error: BaseException) -> None:
        """Pass an error to all readers that still wait for this download; idempotent."""
        self.has_failed = self.has_failed or not self.arrived.is_set
        spool = self.attempt.spool
        # A job that was cancelled before its first head may still open a spool.
        if spool is not None and (not self.arrived.is_set or self.arrived.error is not None):
            spool.fail(error)
            spool.release()
        self.attempt.opened.fail(error)
        self.arrived.fail(error)

    def begin_anew(self, reason: str) -> None:
        """Make another attempt; readers without a byte of the old one follow the new one."""
        old, self._opener = self.attempt, self.opener
        self.attempt = Attempt(
            self.terms, self.sources, self._new_spool, is_confirmed=old.is_confirmed
        )
        assert old.spool is not None
        old.spool.fail(Superseded(reason))
        old.spool.release()


class DownloadReader(GrowingBody):
    """A Body that follows a download, also from one spool to the next; see `GrowingBody`."""

    def __init__(
        self, download: Download, spool: GrowingFile, start: int, stop: int | None
    ) -> None:
        self._download = download
        self._spool = spool
        self._body = spool.reader(start, stop)
        self._start = start
        self._stop = stop
        self._promised = download.size
        self._was_replaced = download.is_replaced
        self._is_closed = False

    @property
    def size(self) -> int | None:
        """Bytes of the part from `start` to `stop`, if known by now."""
        stop = self._stop if self._stop is not None else self._download.size
        return None if stop is None else stop - self._start

    def segment(self) -> Segment | None:
        """Return None, because the file may still grow."""
        return None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._follow(aiter)

    def pieces(self) -> AsyncIterator[bytes | Segment]:
        """See `GrowingBody`."""
        return self._follow(SpoolReader.pieces)

    async def _follow(self, read: Callable[[SpoolReader], AsyncIterator[T]]) -> AsyncIterator[T]:
        has_begun = False
        while True:
            try:
                async for piece in read(self._body):
                    self._check_promise()  # before the last bytes: clients must come for these
                    if not has_begun:
                        has_begun = True
                        self._download.note_sent()
                    yield piece
                self._check_promise()
                return
            except Superseded as error:
                if has_begun:
                    raise WrongBytesSent(f"{SENT}: {error}") from error
            except Resized:
                raise
            except Corrupt as error:
                if has_begun:
                    raise WrongBytesSent(f"{SENT}: {error}") from error
                raise
            await self._move()

    async def _move(self) -> None:
        """Read from the next spool in place of this one.

        Raises Resized if its size differs: a client that wants a part may have received the size.
        For a part, raises also as `refuse_part`.
        """
        self._body.close()
        self._spool = spool = await self._download.attempt.opened.wait()
        if _is_part(self._start, self._stop):
            self._download.refuse_part(was_replaced=self._was_replaced)
        self._body = spool.reader(self._start, self._stop)
        self._check_promise()
        if self._is_closed:  # while this waited
            self._body.close()

    def _check_promise(self) -> None:
        if self._promised is not None and self._promised != self._spool.total:
            raise Resized(f"the file does not have the {self._promised} bytes that were announced")

    def close(self) -> None:
        """Stop reading; idempotent."""
        self._is_closed = True
        self._body.close()


def _is_part(start: int, stop: int | None) -> bool:
    return start > 0 or stop is not None


@frozen(kw_only=True)
class FollowedNar:
    """A NAR on its way; see `answers.ArrivingNar`."""

    download: Download
    outcome: Outcome
    open_body: Callable[[NarKey, Download, int, int | None], Awaitable[Body]]
    _was_replaced: bool = field(
        init=False, default=Factory(lambda nar: nar.download.is_replaced, takes_self=True)
    )

    @property
    def key(self) -> NarKey:
        """The name by which the client asked for the NAR."""
        return self.download.key

    @property
    def file(self) -> str:
        """Name of the file; see `sources.Source`."""
        return self.download.file

    @property
    def upstream(self) -> str:
        """Name of the upstream that sends the bytes."""
        return self.download.upstream

    @property
    def size(self) -> int | None:
        """Bytes of the file behind the URL, if known by now."""
        return self.download.size

    async def known_size(self) -> int:
        """Return the size; if it is unknown, wait for the end of the download."""
        size = self.download.size
        return await self.download.arrived.wait() if size is None else size

    async def final_size(self) -> int:
        """Return the signed size; if there is none, wait for the end of the download."""
        size = self.download.sure_size
        return await self.download.arrived.wait() if size is None else size

    async def location(self) -> str | None:
        """See `ServedNar.location`; None, because the store does not have the NAR yet."""
        return None

    async def body(self, start: int = 0, stop: int | None = None) -> Body:
        """See `ServedNar.body`."""
        if _is_part(start, stop):
            self.download.refuse_part(was_replaced=self._was_replaced)
        return await self.open_body(self.key, self.download, start, stop)

    def reopener(self) -> None:
        """Return None; see `ServedNar.reopener`."""

    async def spoiled(self, error: Corrupt) -> bool:
        """See `ServedNar.spoiled`; False, because the download has its own judge."""
        return False

    def close(self) -> None:
        """Do nothing: the download goes on without its readers."""


class RunningDownloads:
    """The download of each NAR, from its start to the end of its publication."""

    def __init__(self) -> None:
        self._by_key: dict[NarKey, Download] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    @property
    def wanted(self) -> int:
        """Number of the downloads that a client has asked for."""
        guesses = (download.guess for download in self._by_key.values())
        return sum(guess is None or guess.is_wanted for guess in guesses)

    def find(self, key: NarKey) -> Download | None:
        """Return the running download of a NAR; None if there is none, or if it has failed."""
        download = self._by_key.get(key)
        return None if download is None or download.has_failed else download

    def enter(self, download: Download) -> None:
        """Note a download that begins, in place of one that has failed."""
        self._by_key[download.key] = download

    def leave(self, download: Download) -> None:
        """Note the end of a download."""
        if self._by_key.get(download.key) is download:
            del self._by_key[download.key]
        download.ended.succeed(None)

    async def ended(self, key: NarKey) -> None:
        """Wait until the download of a NAR, if there is one, has ended or failed."""
        download = self._by_key.get(key)
        if download is not None:
            await download.end()

    async def disown(self, key: NarKey) -> bool:
        """Keep a download from being published; return False if none runs.

        If its publication has begun, wait for the end of the download, and return False.
        """
        download = self._by_key.get(key)
        if download is None:
            return False
        download.is_disowned = True
        if not download.arrived.is_set:
            return True
        await download.end()
        return False

    def stop(self, key: NarKey, error: NcpsError) -> None:
        """End the download of a NAR, if one runs; readers that wait for bytes get the error.

        Nobody joins it any more, also if its bytes are here and wait to be stored.
        """
        download = self._by_key.get(key)
        if download is not None:
            download.is_disowned = download.has_failed = True
            download.give_up(error)
