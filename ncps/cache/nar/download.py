"""Download: one NAR on its way from upstreams into the store, with its readers following it.

    opening --(first head)--> flowing --(all bytes)--> judged --(right)--> arrived
       |                       |   ^                      |
       +--> failed             +---+ cut or stalled:      +--(wrong)--> opening again: a new spool
                                     goes on from the                   from another source, for
                                     byte it has                        readers that have had no
                                                                        byte; the others break off

The job belongs to the cache, not to a request: readers come and go (D5). Size and FileHash are
checked before the last bytes leave the spool and before anything is published (P7). They are not
signed; where the bytes contradict them, the NAR inside decides:

    FileHash differs at the end           the spool is read once more, through the decompressor
    FileSize differs from an answer's     unless another narinfo agrees with it against the answer,
                                          all goes by NarHash alone from now on
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing

from attrs import evolve
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ncps.aio.flights import Shared
from ncps.aio.spool import Digest, Spool
from ncps.ask.pace import TooSlow
from ncps.ask.policy import verdict
from ncps.cache.nar import judge
from ncps.cache.nar.dispute import Dispute
from ncps.cache.nar.follow import DownloadReader, Superseded
from ncps.cache.nar.judge import Arrived, Disputed, Seal, Verdict, WrongBytes, settled
from ncps.cache.nar.patience import Patience
from ncps.cache.nar.sources import Source, Supply
from ncps.errors import Corrupt, NcpsError, NotFound, Unavailable, Unconfirmed
from ncps.nix.hashes import Hash
from ncps.nix.narurl import NarKey
from ncps.ports import Body, NarRecord, UpstreamBody

MAX_RESTARTS = 3
"""How often wrong bytes are fetched anew within one download."""


class Download:
    """See the module.

    :param expected: what the narinfo says; None if none is known.
    :param new_spool: makes a spool for a file of this size, if known, and these digests.
    :param patience_s: how long no byte may come, in mid-file, before the download is given up.
    :param new_seal: makes the judge of a file.
    :param hopeless: awaited with the verdict that nobody has the file as it was said to be, before
        any reader is told.
    :param tasted: told True when clients have had some of the bytes, False when these were wrong.
    :param found_wrong: awaited with the hash of a file that is the one of the narinfo, and holds
        another NAR.
    :ivar file: names the file in the spool; see `sources.Source`.
    :ivar sources: where it gets its bytes from.
    :ivar origin: where the bytes came from; see there, too.
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
        found_wrong: Callable[[Hash], Awaitable[None]],
        tasted: Callable[[bool], object] = lambda _: None,
        new_seal: Callable[[NarKey, NarRecord | None], Seal] = Seal,
    ) -> None:
        self.key = key
        self.upstream = ""
        self.file = ""
        self.origin: tuple[str, str] | None = None
        self.arrived: Shared[int] = Shared()
        self.has_failed = False
        self._clock = clock
        self._told = self._expected = expected
        self.sources = sources
        self._new_spool = new_spool
        self._patience_s = patience_s
        self._hopeless = hopeless
        self._found_wrong = found_wrong
        self._tasted = tasted
        self._new_seal = new_seal
        self._seal = new_seal(key, expected)
        self._current: Shared[Spool] = Shared()
        self._spool: Spool | None = None
        self._contributors: set[str] = set()
        self._distrusted: dict[str, Corrupt] = {}
        self._suspects: set[str] = set()
        self._disputed = ""
        self._false_word = ""
        self._is_confirmed = False
        self._dispute = Dispute()
        self._is_tasted = False
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
        """Bytes in all, as the verdict has it, or as NarSize says, which is signed."""
        is_sure = self._is_uncompressed or (self.arrived.is_set and not self.has_failed)
        return self.size if is_sure else None

    async def opened(self) -> None:
        """Wait for the head of an upstream's answer; raises what the job came to."""
        await self._current.wait()

    async def reader(self, start: int = 0, stop: int | None = None) -> Body:
        """Follow the bytes from `start` to `stop`, from the first head on.

        Raises what the job came to; Overtaken if bytes have passed without being kept.
        """
        spool = await self._current.wait()
        return DownloadReader(self, spool.reader(start, stop), start, stop)

    def tasted(self) -> None:
        """Note that a client has had bytes."""
        self._is_tasted = True
        self._tasted(True)

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
        patience = Patience(self._clock, self._patience_s)
        while True:
            before = self._length, self._restarts
            self.sources.failures.clear()
            each = self.sources.each(self._distrusted, self._suspects)
            async with aclosing(each) as sources:
                async for source in sources:
                    is_late = self._is_tasted and self._is_other(source) and source.is_other_file
                    arrived = None if is_late else await self._exhaust(source)
                    if arrived is not None:
                        return arrived
            failures = self.sources.failures | self._distrusted
            if self._disputed:
                arrived = await self._settle()
                if arrived is not None:
                    return arrived
                continue
            if (self._length, self._restarts) != before:
                patience.renew()
            if self._restarts != before[1]:
                continue  # who had a part in wrong bytes may do better alone
            is_hopeless = not any(isinstance(error, Unavailable) for error in failures.values())
            if is_hopeless or patience.has_ended(has_bytes=self._length > 0):
                raise verdict(failures, self.key.file_name)
            await patience.pause()

    @property
    def _length(self) -> int:
        return 0 if self._spool is None else self._spool.length

    async def _exhaust(self, source: Source) -> Arrived | None:
        """Take what one source gives, again and again as long as it adds something."""
        while True:
            before = self._length
            offset = 0 if self._is_other(source) else before
            try:
                source, body = await self.sources.open(
                    source, offset, allow_encoding=self._is_uncompressed
                )
                spool = await self._pump(source, body, offset)
                return await self._judge(spool)
            except (NotFound, Unavailable, Corrupt) as error:
                if self._spool is not None and self._spool.error is error:
                    raise  # the trouble is ours: no source can help
                if isinstance(error, WrongBytes) and self._false_word:
                    error = WrongBytes(f"{self._false_word}; {error}")
                self._note(source, error)
                if isinstance(error, WrongBytes):
                    self._start_over(source.name, error)
                elif isinstance(error, Corrupt):
                    self._distrusted[source.name] = error
                if isinstance(error, Disputed):
                    self._disputed = str(error)
                elif not self._length and self.size != self._seal.size:
                    self._drop_spool(str(error), cost=0)  # an answer's word, and no byte
                is_worth_it = isinstance(error, Unavailable) and not isinstance(error, TooSlow)
                if not is_worth_it or self._length <= before:
                    return None

    def _is_other(self, source: Source) -> bool:
        """Whether a source has another file than the one that lies in the spool."""
        return self._spool is not None and self.file != source.file

    def _note(self, source: Source, error: NcpsError) -> None:
        self.sources.failed(source, error)
        text = "upstream {upstream} failed for {what} at byte {offset}: {reason}"
        about = {"what": self.key.file_name, "offset": self._length, "reason": str(error)}
        self._log.warn(text, upstream=source.name, **about)

    async def _pump(self, source: Source, body: UpstreamBody, offset: int) -> Spool:
        """Append what the source sends, from the byte there is, up to the end of the file.

        On return and after every error but a cancel, all that came is written and hashed.
        """
        trouble: Unavailable | Corrupt | None = None
        try:
            if self._is_other(source):
                self._drop_spool(f"{source.name} has another file of the same NAR")
            if source.is_other_file:
                self._relax(f"there is only another file of it, at {source.name}")
            spool = await self._admit(source, body)
            try:
                await self._append(spool, body, offset)
            except (Unavailable, Corrupt) as error:
                trouble = error
            await settled(spool)
        finally:
            body.close()
        is_whole = spool.length == self.size
        if self.size is None and isinstance(trouble, Unconfirmed):
            is_whole = self._seal.confirms(spool.length)
        if trouble is not None and (isinstance(trouble, Corrupt) or not is_whole):
            raise trouble
        if self.size is not None and not is_whole:
            text = f"the body ended at byte {spool.length} of {self.size}"
            if self._is_disputable and trouble is None and spool.length == offset:
                raise Disputed(text)
            raise Unavailable(text, kind="broken")
        return spool

    @property
    def _is_uncompressed(self) -> bool:
        return self._expected is not None and self._expected.compression == "none"

    async def _admit(self, source: Source, body: UpstreamBody) -> Spool:
        """Check the head of an answer; the first good one opens the spool."""
        name = source.name
        if body.total is not None and self.size is not None and body.total != self.size:
            text = f"the file has {body.total} bytes instead of {self.size}"
            if not self._is_disputable:
                raise Corrupt(text)
            if self._spool is not None:
                is_told = self._seal.size is not None
                if is_told or self._dispute.is_worth_a_look(name, body.total, self._length):
                    raise Disputed(text)
                raise Corrupt(text)
            if await self.sources.contradicts(body.total):
                raise Corrupt(text)
            self._relax(text)
        elif body.total is not None and body.total == self.size:
            self._is_confirmed = self._seal.size is not None or name != self.upstream
        if self._spool is None:
            total = self._seal.size if self._seal.size is not None else body.total
            self._spool = self._new_spool(total, self._seal.digests)
            self.upstream = name
            self.file, self.origin = source.file, source.origin
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
            most = self._seal.most if self.size is None else self.size
            if handed > most:
                text = f"the body is longer than {most} bytes"
                self._disputed = text if self._is_disputable else self._disputed
                raise WrongBytes(text)
            await spool.write(data)

    @property
    def _is_disputable(self) -> bool:
        """Whether the file's size is the word of one: of a narinfo, or of the first answer."""
        can_decide = self._seal.size is None or self._seal.can_overrule
        return self.size is not None and not self._is_confirmed and can_decide

    async def _judge(self, spool: Spool) -> Arrived:
        """Let the seal judge a spool, and commit it. WrongBytes."""
        try:
            judgement = await self._seal.examine(spool)
        except judge.WrongNar as error:
            await self._found_wrong(error.file_hash)
            raise WrongBytes(str(error)) from error
        except Corrupt as error:
            raise WrongBytes(str(error)) from error
        false_word = "" if self._is_as_told(judgement) else self._false_word
        if complaint := judgement.complaint or false_word:
            self.sources.lied(complaint)
        spool.commit()
        return Arrived(spool, judgement)

    def _is_as_told(self, verdict: Verdict) -> bool:
        """Whether the narinfo was right about the file after all: an answer's size was false."""
        told = self._told
        facts = verdict.size, verdict.sha256
        return told is not None and (told.file_size, told.file_hash) == facts

    async def _settle(self) -> Arrived | None:
        """After nobody had a file of the size that was told: let the NAR decide."""
        reason, self._disputed = self._disputed, ""
        author = self.upstream
        if self._spool is not None:
            try:
                return await self._judge(self._spool)
            except WrongBytes as error:
                if self._seal.size is None and not self._dispute.is_refuted:
                    return None
                self._drop_spool(str(error))
        if self._seal.size is not None:
            self._relax(reason)
        self._distrusted.clear()
        self._suspects = {author}
        return None

    def _relax(self, reason: str) -> None:
        """Go by NarHash alone from now on, if that is possible."""
        if self._expected is not None and self._seal.can_overrule:
            self._false_word = reason
            self._expected = evolve(self._expected, file_hash=None, file_size=None)
            self._seal = self._new_seal(self.key, self._expected)

    def _start_over(self, name: str, error: WrongBytes) -> None:
        """Drop the spool; shun the source if all of the wrong bytes were its own.

        Where several had a part in it, the last one is to show what it has on its own, first.
        """
        if self._contributors == {name}:
            self._distrusted[name] = error
        self._suspects = self._contributors - {name}
        if self._is_tasted:  # of what no client can go on with
            self._tasted(False)
        self._drop_spool(str(error))

    def _drop_spool(self, reason: str, *, cost: int = 1) -> None:
        """Begin anew; readers that have had no byte follow. Corrupt: that was too often."""
        self._restarts += cost
        if cost and self._restarts > MAX_RESTARTS:
            raise Corrupt(reason)
        spool, self._spool = self._spool, None
        self._is_tasted = False
        self._seal = self._new_seal(self.key, self._expected)
        self._is_confirmed = self._is_confirmed and self._seal.size is not None
        self._dispute = Dispute()
        self._contributors = set()
        self._current = Shared()
        assert spool is not None
        spool.fail(Superseded(reason))
        spool.release()
