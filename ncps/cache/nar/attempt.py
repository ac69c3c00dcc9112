"""Attempt: one spool, its judge, and the sources that had a part in it.

    waiting --(first good head)--> opened --(all bytes)--> judged --(right)--> Arrived
                                    |  ^                      |
                                    +--+ cut or stalled       +--(wrong)--> WrongBytes

Size and FileHash are checked before the last bytes leave the spool and before anything is
published (P7). They are not signed; where the bytes contradict them, the NAR inside decides:

    FileHash differs at the end           the spool is read once more, through the decompressor
    FileSize differs from an answer's     only NarHash counts from now on, unless another narinfo
                                          agrees with the FileSize against the answer

Only one upstream vouches for a Content-Length, as for the FileSize of a narinfo. If its body has
another length, the upstream may have lied. The next upstream, which says another size, may lie as
well. Two upstreams that agree are believed against one. If an upstream says that its body is
complete, this is believed if the NAR inside is right.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve, frozen

from ncps.aio.growing import Estimated, GrowingFile
from ncps.aio.guess import is_beyond
from ncps.aio.waiting import Future
from ncps.cache.nar.sources import Source, Sources
from ncps.errors import Corrupt, Unavailable, Unconfirmed
from ncps.nix.judge import Disputed, Doubtful, Judge, Verdict, WrongBytes, WrongNar
from ncps.nix.narurl import NarKey
from ncps.ports import NarRecord, UpstreamBody

NewSpool = Callable[[int | None, tuple[Estimated, ...]], GrowingFile]
"""Makes a spool for a file of this size, if known, and these digests."""

BELIEVED = 2
"""Number of upstreams that must agree on another size before the first answer's is refuted."""


@frozen
class Arrived:
    """The whole file, verified. The caller publishes the file and then releases the spool.

    :param source: the source that opened the spool.
    """

    spool: GrowingFile
    verdict: Verdict
    source: Source


class TooLargeToGuess(Unavailable):
    """The file is larger than a guess may fetch; no other source is asked."""


FINAL = (Corrupt, TooLargeToGuess)
"""Errors of a body that matter even if all bytes of the file have come."""


class Terms:
    """The facts by which the attempts of one download are judged.

    :param announced: the facts in the narinfo; None if none is known.
    :param new_judge: makes the judge of a file.
    :ivar false_word: why FileHash and FileSize of the narinfo no longer count; empty while they do.
    """

    def __init__(
        self,
        key: NarKey,
        announced: NarRecord | None,
        new_judge: Callable[[NarKey, NarRecord | None], Judge],
    ) -> None:
        self.key = key
        self.false_word = ""
        self._announced = self._expected = announced
        self._new_judge = new_judge

    def judge(self) -> Judge:
        """Make a judge. Raises NotFound if no such file can exist, Unverifiable as `Judge`."""
        return self._new_judge(self.key, self._expected)

    @property
    def is_uncompressed(self) -> bool:
        """Whether the file is the NAR itself."""
        return self._expected is not None and self._expected.compression == "none"

    @property
    def signed_size(self) -> int | None:
        """Bytes of the file as NarSize says, which is signed; None unless the file is the NAR."""
        announced = self._announced
        return announced.nar_size if announced is not None and self.is_uncompressed else None

    def is_surely_other(self, file: str) -> bool:
        """Return whether the name of a file is another hash than FileHash; see `Source.file`.

        Such a file may come from another process, which does not say that it has replaced one.
        """
        known = None if self._announced is None else self._announced.file_hash
        return known is not None and file.startswith("sha256:") and file != str(known)

    def relax(self, reason: str) -> None:
        """Judge by NarHash alone from now on."""
        if self._expected is not None:
            self.false_word = reason
            self._expected = evolve(self._expected, file_hash=None, file_size=None)

    def complaint(self, verdict: Verdict) -> str:
        """Return the false statement of the narinfo about a file; empty if all was true."""
        announced, facts = self._announced, (verdict.size, verdict.sha256)
        is_as_announced = (
            announced is not None and (announced.file_size, announced.file_hash) == facts
        )
        return verdict.complaint or ("" if is_as_announced else self.false_word)


class Dispute:
    """The upstreams that contradict the size of the first answer, and the sizes that they say."""

    def __init__(self) -> None:
        self._said: dict[int, set[str]] = {}

    @property
    def is_refuted(self) -> bool:
        """Whether `BELIEVED` upstreams agree on another size."""
        return any(len(names) >= BELIEVED for names in self._said.values())

    def is_worth_a_look(self, name: str, size: int, length: int) -> bool:
        """Note the size that an upstream says; return whether the bytes so far may be the file.

        :param length: number of bytes that have arrived.
        """
        self._said.setdefault(size, set()).add(name)
        return size == length or self.is_refuted


class Attempt:
    """One attempt, from waiting to its end; see the picture in the docstring of the module.

    :param sources: says whether other narinfos contradict an answer's size.
    :param is_confirmed: whether an answer has agreed with the size that the narinfo says.
    :ivar opened: the spool, once a good head has arrived.
    :ivar opener: the source of that head.
    :ivar contributors: names of the sources whose bytes may be in the spool.
    :ivar disputed: why the file is too long, if the size that it exceeds may be wrong.
    :ivar is_partly_sent: whether clients have received bytes.
    """

    def __init__(
        self, terms: Terms, sources: Sources, new_spool: NewSpool, *, is_confirmed: bool = False
    ) -> None:
        self.judge = terms.judge()
        self.spool: GrowingFile | None = None
        self.opened: Future[GrowingFile] = Future()
        self.opener: Source | None = None
        self.contributors: set[str] = set()
        self.disputed = ""
        self.dispute = Dispute()
        self.is_partly_sent = False
        self.is_confirmed = is_confirmed and self.judge.size is not None
        self._terms = terms
        self._sources = sources
        self._new_spool = new_spool

    @property
    def size(self) -> int | None:
        """Bytes in all, if known by now."""
        if self.spool is not None and self.spool.total is not None:
            return self.spool.total
        return self.judge.size

    @property
    def length(self) -> int:
        """Number of bytes that have arrived."""
        return 0 if self.spool is None else self.spool.length

    @property
    def _is_disputable(self) -> bool:
        """Whether one source alone, a narinfo or the first answer, vouches for the file's size."""
        can_decide = self.judge.size is None or self.judge.can_overrule
        return self.size is not None and not self.is_confirmed and can_decide

    def is_other(self, source: Source) -> bool:
        """Return whether a source has another file than the spool."""
        opener = self.opener
        return self.spool is not None and opener is not None and opener.file != source.file

    def offset_of(self, source: Source) -> int:
        """Return the offset at which a source must continue."""
        return 0 if self.is_other(source) else self.length

    def relax(self, reason: str) -> None:
        """Judge by NarHash alone, if that is possible. Call this only while there is no spool."""
        if self.judge.can_overrule:
            self._terms.relax(reason)
            self.judge = self._terms.judge()

    async def take(self, source: Source, body: UpstreamBody, offset: int) -> GrowingFile:
        """Append the bytes that a source sends, from `offset` up to the end of the file.

        On return and after every error but a cancel, all bytes that arrived are written and hashed.
        Raises Unavailable if bytes are missing, WrongNar as `judged`, Disputed or another Corrupt
        if they cannot be right.
        """
        trouble: Unavailable | Corrupt | None = None
        spool = await self._admit(source, body)
        try:
            await self._append(spool, body, offset)
        except (Unavailable, Corrupt) as error:
            trouble = error
        await self._hashed(spool)
        is_whole = spool.length == self.size
        if self.size is None and isinstance(trouble, Unconfirmed):
            is_whole = self.judge.confirms(spool.length)
        if trouble is not None and (isinstance(trouble, FINAL) or not is_whole):
            raise trouble
        if self.size is not None and not is_whole:
            text = f"the body ended at byte {spool.length} of {self.size}"
            if self._is_disputable and trouble is None and spool.length == offset:
                raise Disputed(text)
            raise Unavailable(text, kind="broken")
        return spool

    async def _hashed(self, spool: GrowingFile) -> None:
        """Wait until all bytes are written and hashed. Raises WrongBytes if a digest objects."""
        try:
            await spool.flush()
        except Corrupt as error:
            raise self.judge.refused(error) from error

    async def judged(self) -> Arrived:
        """Judge the bytes, once all have arrived, and commit them.

        Raises WrongNar if they are the file that the narinfo names, with another NAR inside,
        WrongBytes if they are wrong in another way.
        """
        assert self.spool is not None
        assert self.opener is not None
        try:
            verdict = await self._verdict(self.spool)
        except WrongNar:
            raise
        except Corrupt as error:
            raise WrongBytes(str(error)) from error
        if complaint := self._terms.complaint(verdict):
            self._sources.lied(complaint)
        self.spool.commit()
        return Arrived(self.spool, verdict, self.opener)

    async def _verdict(self, spool: GrowingFile) -> Verdict:
        """Judge the bytes of a spool; if the file is doubtful, the NAR inside decides.

        Raises Corrupt if they are wrong.
        """
        try:
            return self.judge.judge(spool.length)
        except Doubtful as doubt:
            if not spool.is_kept:
                raise
            inspector = self.judge.inspector()
            try:
                await spool.reread(inspector)
            except Corrupt as error:
                raise Corrupt(f"{doubt}; {error}") from error
            return self.judge.overrule(inspector, spool.length)

    async def _admit(self, source: Source, body: UpstreamBody) -> GrowingFile:
        """Check the head of an answer; make the spool for the first good one. Return the spool."""
        name, total = source.name, body.total
        _refuse_guess(total or 0)
        if total is not None and self.size is not None and total != self.size:
            await self._contradicted(name, total)
        elif total is not None and total == self.size:
            is_another = self.opener is None or self.opener.name != name
            self.is_confirmed = self.judge.size is not None or is_another
        if self.spool is None:
            size = self.judge.size if self.judge.size is not None else total
            self.spool = self._new_spool(size, self.judge.digests)
            self.opener = source
            self.opened.succeed(self.spool)
        self.spool.is_total_sure = self.is_confirmed
        self.contributors.add(name)
        return self.spool

    async def _contradicted(self, name: str, total: int) -> None:
        """Decide whether to believe an answer that contradicts the known size.

        Raises Corrupt if the answer counts as wrong, Disputed if that cannot be decided yet.
        """
        text = f"the file has {total} bytes instead of {self.size}"
        if not self._is_disputable:
            raise Corrupt(text)
        if self.spool is not None:
            is_announced = self.judge.size is not None
            if is_announced or self.dispute.is_worth_a_look(name, total, self.length):
                raise Disputed(text)
            raise Corrupt(text)
        if await self._sources.contradicts(total):
            raise Corrupt(text)
        self.relax(text)

    async def _append(self, spool: GrowingFile, body: UpstreamBody, offset: int) -> None:
        skip = offset - body.start
        handed = offset
        async for chunk in body:
            if skip >= len(chunk):
                skip -= len(chunk)
                continue
            data = chunk[skip:] if skip else chunk
            skip = 0
            handed += len(data)
            _refuse_guess(handed)
            most = self.judge.most if self.size is None else self.size
            if handed > most:
                text = f"the body is longer than {most} bytes"
                self.disputed = text if self._is_disputable else ""
                raise WrongBytes(text)
            await spool.write(data)


def _refuse_guess(size: int) -> None:
    """Raise TooLargeToGuess if a guess may not fetch this number of bytes."""
    if is_beyond(size):
        raise TooLargeToGuess("the file is larger than its narinfo says, and no client wants it")
