"""Download: one NAR on its way from upstreams into the store, with its readers following it.

    opening --(first head)--> flowing --(all bytes)--> judged --(right)--> arrived
       |                       |   ^                      |
       +--> failed             +---+ cut or stalled:      +--(wrong)--> opening again: a new spool
                                     goes on from the                   from another source, for
                                     byte it has                        readers that have had no
                                                                        byte; the others break off

The job belongs to the cache, not to a request: readers come and go (D5). Size and FileHash are
checked before the last bytes leave the spool and before anything is published (P7).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

from attrs import frozen
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ncps.cache.policy import verdict
from ncps.cache.seal import Seal, Verdict
from ncps.cache.sources import Source, Supply
from ncps.errors import Corrupt, NcpsError, NotFound, Unavailable
from ncps.flights import Shared
from ncps.nix.narurl import NarKey
from ncps.ports import Body, NarRecord, Segment, UpstreamBody
from ncps.spool import Digest, Spool

PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Waits between rounds through all sources; the last one repeats."""

OPENING_ROUNDS = 2
"""Rounds before a download that has no byte yet is given up: its clients wait for a status."""

MAX_RESTARTS = 3
"""How often wrong bytes are fetched anew within one download."""


class Superseded(Unavailable):
    """The spool had wrong bytes; another one takes its place."""


class WrongBytes(Corrupt):
    """What lies in the spool is not, or not the beginning of, what was asked for."""


@frozen
class Arrived:
    """The whole file, verified; whoever gets it publishes and then releases the spool."""

    spool: Spool
    verdict: Verdict


class Download:
    """See the module.

    :param expected: what the narinfo says; None if none is known.
    :param new_spool: makes a spool for a file of this size (None: unknown) and these digests.
    :param patience_s: how long no byte may come, in mid-file, before the download is given up.
    :param new_seal: makes the judge of a file.
    :param hopeless: awaited with the verdict that nobody has the file as it was said to be, before
        any reader is told: when one comes again at once, the consequences have been drawn.
    :ivar file: names the file whose bytes lie in the spool; see `sources.Source`.
    :ivar arrived: the file's size, once all of it is here and right.
    :ivar has_failed: whether it is of no use to join any more; set before anybody hears of it.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        clock: IReactorTime,
        key: NarKey,
        expected: NarRecord | None,
        sources: Supply,
        new_spool: Callable[[int | None, tuple[Digest, ...]], Spool],
        patience_s: float,
        hopeless: Callable[[NcpsError], Awaitable[None]],
        new_seal: Callable[[NarKey, NarRecord | None], Seal] = Seal,
    ) -> None:
        self.key = key
        self.upstream = ""
        self.file = ""
        self.arrived: Shared[int] = Shared()
        self.has_failed = False
        self._clock = clock
        self._expected = expected
        self._sources = sources
        self._new_spool = new_spool
        self._patience_s = patience_s
        self._hopeless = hopeless
        self._new_seal = new_seal
        self._seal = new_seal(key, expected)
        self._current: Shared[Spool] = Shared()
        self._spool: Spool | None = None
        self._contributors: set[str] = set()
        self._distrusted: dict[str, Corrupt] = {}
        self._suspects: set[str] = set()
        self._restarts = 0

    # The readers' side

    @property
    def size(self) -> int | None:
        """Bytes in all, if known by now."""
        if self._spool is not None and self._spool.total is not None:
            return self._spool.total
        return self._seal.size

    @property
    def sure_size(self) -> int | None:
        """Bytes in all, as the narinfo or the verdict has it; an upstream's word does not count."""
        if self.arrived.is_set and not self.has_failed:
            return self.size
        return self._seal.size

    async def opened(self) -> None:
        """Wait until the head of an upstream's answer is there; raises what the job came to."""
        await self._current.wait()

    async def reader(self, start: int = 0, stop: int | None = None) -> Body:
        """Follow the bytes from `start` to `stop`, from the first head on.

        Raises what the job came to; Overtaken if bytes have passed without being kept.
        """
        spool = await self._current.wait()
        return DownloadReader(self, spool.reader(start, stop), start, stop)

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
                await self._hopeless(error)
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
        if self._spool is not None and not self.arrived.is_set:
            self._spool.fail(error)
            self._spool.release()
        self._current.fail(error)
        self.arrived.fail(error)

    async def _fetch(self) -> Arrived:
        """Go round through the sources until the whole is here or hope is gone."""
        rounds = 0
        progress_at = self._clock.seconds()
        while True:
            before = self._length, self._restarts
            self._sources.failures.clear()
            each = self._sources.each(self._distrusted, self._suspects)
            async with aclosing(each) as sources:
                async for source in sources:
                    arrived = await self._exhaust(source)
                    if arrived is not None:
                        return arrived
            failures = self._sources.failures | self._distrusted
            rounds += 1
            if (self._length, self._restarts) != before:
                rounds, progress_at = 0, self._clock.seconds()
            patience = self._patience_s if self._length else 0.0
            is_hopeless = not any(isinstance(error, Unavailable) for error in failures.values())
            is_over = rounds >= OPENING_ROUNDS and self._clock.seconds() - progress_at >= patience
            if is_hopeless or is_over:
                raise verdict(failures, self.key.file_name)
            await deferLater(self._clock, PAUSES_S[min(rounds, len(PAUSES_S) - 1)])

    @property
    def _length(self) -> int:
        return 0 if self._spool is None else self._spool.length

    async def _exhaust(self, source: Source) -> Arrived | None:
        """Take what one source gives, again and again as long as it adds something."""
        name = source.name
        while True:
            before = self._length
            try:
                spool = await self._pump(source)
                return Arrived(spool, self._judge(spool))
            except (NotFound, Unavailable, Corrupt) as error:
                if self._spool is not None and self._spool.error is error:
                    raise  # the trouble is ours: no source can help
                self._note(source, error)
                if isinstance(error, WrongBytes):
                    self._start_over(name, error)
                elif isinstance(error, Corrupt):
                    self._distrusted[name] = error
                if not isinstance(error, Unavailable) or self._length <= before:
                    return None

    def _note(self, source: Source, error: NcpsError) -> None:
        self._sources.failed(source, error)
        self._log.warn(
            "upstream {upstream} failed for {what} at byte {offset}: {reason}",
            upstream=source.name,
            what=self.key.file_name,
            offset=self._length,
            reason=str(error),
        )

    async def _pump(self, source: Source) -> Spool:
        """Append what the source sends, from the byte there is, up to the end of the file.

        On return and after every error but a cancel, all that came is written and hashed.
        """
        is_other = self._spool is not None and self.file != source.file
        offset = 0 if is_other else self._length
        body = await source.open(offset, allow_encoding=self._is_uncompressed)
        trouble: Unavailable | Corrupt | None = None
        try:
            if is_other:
                self._drop_spool(f"{source.name} has another file of the same NAR")
            spool = self._admit(source, body)
            try:
                await self._append(spool, body, offset)
            except (Unavailable, Corrupt) as error:
                trouble = error
            await _settled(spool)
        finally:
            body.close()
        is_whole = self.size is not None and spool.length == self.size
        if isinstance(trouble, Unavailable) and not is_whole:
            source.broke_off(str(trouble))
            raise trouble
        if isinstance(trouble, Corrupt):
            raise trouble
        if self.size is not None and not is_whole:
            raise Unavailable(f"the body ended at byte {spool.length} of {self.size}")
        return spool

    @property
    def _is_uncompressed(self) -> bool:
        return self._expected is not None and self._expected.compression == "none"

    def _admit(self, source: Source, body: UpstreamBody) -> Spool:
        """Check the head of an answer; the first good one opens the spool."""
        if body.total is not None and self.size is not None and body.total != self.size:
            raise Corrupt(f"the file has {body.total} bytes instead of {self.size}")
        name = source.name
        if self._spool is None:
            total = self._seal.size if self._seal.size is not None else body.total
            self._spool = self._new_spool(total, self._seal.digests)
            self.upstream = name
            self.file = source.file
            self._current.succeed(self._spool)
        self._contributors.add(name)
        return self._spool

    async def _append(self, spool: Spool, body: UpstreamBody, offset: int) -> None:
        skip = offset - body.start
        handed = offset
        async for chunk in body:
            if skip >= len(chunk):
                skip -= len(chunk)
                continue
            data = chunk[skip:] if skip else chunk
            skip = 0
            handed += len(data)
            if self.size is not None and handed > self.size:
                raise WrongBytes(f"the body is longer than {self.size} bytes")
            await spool.write(data)

    def _judge(self, spool: Spool) -> Verdict:
        try:
            judgement = self._seal.judge(spool.length)
        except Corrupt as error:
            raise WrongBytes(str(error)) from error
        spool.commit()
        return judgement

    def _start_over(self, name: str, error: WrongBytes) -> None:
        """Drop the spool; shun the source if all of the wrong bytes were its own.

        Where several had a part in it, the last one is to show what it has on its own, first.
        """
        if self._contributors == {name}:
            self._distrusted[name] = error
        self._suspects = self._contributors - {name}
        self._drop_spool(str(error))

    def _drop_spool(self, reason: str) -> None:
        """Begin anew; readers that have had no byte follow. Corrupt: that was too often."""
        self._restarts += 1
        if self._restarts > MAX_RESTARTS:
            raise Corrupt(reason)
        spool, self._spool = self._spool, None
        self._seal = self._new_seal(self.key, self._expected)
        self._contributors = set()
        self._current = Shared()
        assert spool is not None
        spool.fail(Superseded(reason))
        spool.release()


async def _settled(spool: Spool) -> None:
    """Wait until all bytes are written and hashed. WrongBytes: a digest has found them wrong."""
    try:
        await spool.flush()
    except Corrupt as error:
        raise WrongBytes(str(error)) from error


class DownloadReader:
    """A Body that follows a download, also from one spool to the next; see `ncps.ports.Body`."""

    def __init__(self, download: Download, body: Body, start: int, stop: int | None) -> None:
        self._download = download
        self._body = body
        self._start = start
        self._stop = stop
        self._promised = download.size
        self._is_closed = False

    @property
    def size(self) -> int | None:
        """Bytes in all, if known by now."""
        stop = self._stop if self._stop is not None else self._download.size
        return None if stop is None else stop - self._start

    def segment(self) -> Segment | None:
        """None: the file may still grow."""
        return None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        has_begun = False
        while True:
            try:
                async for chunk in self._body:
                    has_begun = True
                    yield chunk
                return
            except Superseded as error:
                if has_begun:
                    raise Corrupt(str(error)) from error
            await self._move()

    async def _move(self) -> None:
        """Go over to the spool that takes the place of this one.

        Corrupt, if the size was wrong, too: whoever asked for a piece may have been told of it.
        """
        self._body.close()
        self._body = await self._download.reader(self._start, self._stop)
        if self._promised not in {None, self._download.size}:
            raise Corrupt(f"the file was said to have {self._promised} bytes, and has not")
        if self._is_closed:  # meanwhile
            self._body.close()

    def close(self) -> None:
        """Stop reading; idempotent."""
        self._is_closed = True
        self._body.close()
