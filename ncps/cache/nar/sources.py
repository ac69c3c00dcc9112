"""Sources: where the bytes of one NAR can be fetched, the best first, found out as needed.

URL, FileHash and FileSize of a narinfo are not signed, so another upstream's narinfo of the same
NAR is held to be of the same file if either FileHash or the hash in the URL agrees. A file that
differs is a last resort: bytes behind a URL never change (P5), so it comes only where none of them
was ever stored or went to a client, and after everybody has failed with the file of the narinfo,
for sure or twice.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Container
from contextlib import aclosing
from functools import partial
from typing import Protocol

from attrs import evolve, frozen
from twisted.internet.interfaces import IReactorTime

from ncps.ask.choose import Candidate, Upstreams
from ncps.ask.health import Health
from ncps.ask.hedge import Hedge
from ncps.ask.late import LateHead
from ncps.ask.pace import paced
from ncps.ask.policy import verdict
from ncps.ask.watched import watched
from ncps.cache.nar.same_file import is_same_file
from ncps.errors import Corrupt, NcpsError, NotFound, Unavailable
from ncps.nix.narurl import NarKey
from ncps.ports import NarRecord, Upstream, UpstreamBody


class Source(Protocol):
    """Somebody who may have the bytes of a NAR."""

    @property
    def name(self) -> str:
        """Short and unique, for logs."""

    @property
    def file(self) -> str:
        """Names the file that lies there.

        Sources of one file can go on for each other, others only agree in NarHash.
        """

    @property
    def origin(self) -> tuple[str, str] | None:
        """Base URL of an upstream and the URL there, from which the bytes can be had again."""

    @property
    def is_other_file(self) -> bool:
        """Whether the file is surely not the one of the narinfo, though the NAR inside is."""

    async def open(self, offset: int, *, allow_encoding: bool) -> UpstreamBody:
        """Open the bytes from `offset` on; see `Upstream.open_nar`."""


class Supply(Protocol):
    """Where a download gets its sources from, round after round.

    :ivar failures: how each failed that was asked since this was last cleared, by name.
    """

    failures: dict[str, NcpsError]

    def each(
        self, shunned: Container[str] = (), suspects: Container[str] = ()
    ) -> AsyncGenerator[Source, None]:
        """One round; names in `shunned` are left out, those in `suspects` come last."""

    async def open(
        self, source: Source, offset: int, *, allow_encoding: bool
    ) -> tuple[Source, UpstreamBody]:
        """Open a source, or another one of the same file if that is quicker. As `Source.open`."""

    async def contradicts(self, size: int) -> bool:
        """Whether other narinfos than the one in doubt say another size than an answer does."""

    def allow_replacing(self) -> None:
        """Let another file of the NAR do; somebody waits who has no byte yet."""

    def failed(self, source: Source, error: NcpsError) -> None:
        """Note, for the verdict, how a source failed."""

    def lied(self, reason: str) -> None:
        """Note that the narinfo says something untrue of a file that is right."""


@frozen
class UpstreamSource(Source):
    """One upstream and the URL under which it has the bytes.

    :param size: of the file, as its narinfo says.
    :param record: what that narinfo says of it all; None if it is the one that is known.
    """

    candidate: Candidate
    url: str
    file: str
    clock: IReactorTime
    is_other_file: bool = False
    size: int | None = None
    record: NarRecord | None = None

    @property
    def origin(self) -> tuple[str, str]:
        """The upstream and the URL there."""
        return self.upstream.base_url, self.url

    @property
    def health(self) -> Health:
        """Of the upstream."""
        return self.candidate.health

    @property
    def upstream(self) -> Upstream:
        """Whom to ask."""
        return self.candidate.upstream

    @property
    def name(self) -> str:
        return self.upstream.name

    async def open(
        self,
        offset: int,
        *,
        allow_encoding: bool,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> UpstreamBody:
        """See `Upstream.open_nar`; its health learns from how it went, to the body's end.

        :param is_wanted: see `late.LateHead`.
        """
        head = LateHead(self.candidate, self.clock, is_wanted)
        self.health.fetching()
        try:
            body = await self.candidate.ask(
                lambda upstream: head.wait(
                    upstream.open_nar(self.url, offset=offset, allow_encoding=allow_encoding)
                ),
                self.clock,
            )
        except BaseException:
            self.health.let_go()
            raise
        return watched(body, self.health)

    async def stat(self) -> int | None:
        """See `Upstream.stat_nar`."""
        return await self.candidate.ask(lambda upstream: upstream.stat_nar(self.url), self.clock)


class Sources(Supply):
    """All upstream sources of one NAR: its origin, then whoever says it has the very same file.

    :param nar: what is known of it; None if no narinfo is known: then the file's name is taken
        for its hash, and every upstream may have it under the conventional URL.
    :param same_nar: asks an upstream for its record of the same NAR; see `NarInfos.same_nar`.
    :param replaced: awaited with what is said of another file that is fetched instead.
    """

    def __init__(
        self,
        clock: IReactorTime,
        upstreams: Upstreams,
        key: NarKey,
        nar: NarRecord | None,
        same_nar: Callable[[Candidate, NarRecord], Awaitable[NarRecord | None]],
        replaced: Callable[[NarRecord], Awaitable[None]],
    ) -> None:
        self._clock = clock
        self._upstreams = upstreams
        self._key = key
        self._nar = nar
        self._same_nar = same_nar
        self._replaced = replaced
        self._may_replace = False
        self._rounds = 0
        self._places: dict[str, UpstreamSource] = {}
        self._asked_anew: set[str] = set()
        self._shunned: Container[str] = ()
        self._left: set[str] = set()
        self.failures: dict[str, NcpsError] = {}

    async def each(
        self, shunned: Container[str] = (), suspects: Container[str] = ()
    ) -> AsyncGenerator[UpstreamSource, None]:
        """One round through all sources that may be asked now; failures to find one are noted.

        :param shunned: names of upstreams to leave out.
        :param suspects: names of upstreams to be asked after all others.
        """
        self._shunned = shunned
        others: list[UpstreamSource] = []
        for candidate in self._candidates(suspects):
            if candidate.upstream.name in shunned:
                continue
            source = await self._source(candidate)
            if source is not None and source.is_other_file:
                others.append(source)
                self.failures[source.name] = Corrupt("has another file of the same NAR")
            elif source is not None:
                yield source
                again = await self._made_known(source)
                if again is not None:
                    yield again
        self._rounds += 1
        is_sure = not any(isinstance(error, Unavailable) for error in self.failures.values())
        if self._may_replace and (is_sure or self._rounds > 1):
            for source in others:
                yield source

    async def _made_known(self, source: UpstreamSource) -> UpstreamSource | None:
        """The source of a narinfo that we know, after it denied the NAR; None: it does not help.

        A cache like us that has lost its catalog knows its NARs again once their narinfos were
        asked for.
        """
        nar, name = self._nar, source.name
        is_denied = isinstance(self.failures.get(name), NotFound) and source.record is None
        if nar is None or not is_denied or name in self._asked_anew:
            return None
        self._asked_anew.add(name)
        try:
            other = await self._same_nar(source.candidate, nar)
        except (NotFound, Unavailable, Corrupt):
            return None
        if other is None or not is_same_file(nar, other):
            return None
        return evolve(source, url=other.origin_url)

    def _candidates(self, suspects: Container[str] = ()) -> list[Candidate]:
        first = self._nar.upstream if self._nar is not None else ""

        def rank(candidate: Candidate) -> tuple[bool, bool, bool]:
            health = candidate.health  # the origin, too, comes last while it does not answer
            name = candidate.upstream.name
            return name in suspects, name in self._left, health.is_sick

        return sorted(self._upstreams.ordered(first), key=rank)

    async def _source(self, candidate: Candidate) -> UpstreamSource | None:
        """What one upstream has; None, and a failure noted, if nothing now. Unavailable: ours."""
        name, health = candidate.upstream.name, candidate.health
        if not health.may_fetch:
            self.failures[name] = Unavailable(
                f"away ({health.last_error})", retry_after=health.retry_after_s
            )
            return None
        try:
            return await self._place(candidate)
        except (NotFound, Unavailable, Corrupt) as error:
            self.failures[name] = error
            self._upstreams.report(self._key.file_name, candidate, error)
            return None

    async def open(
        self, source: Source, offset: int, *, allow_encoding: bool
    ) -> tuple[Source, UpstreamBody]:
        """See `Supply`."""
        if not isinstance(source, UpstreamSource) or len(self._upstreams.candidates) == 1:
            return source, await source.open(offset, allow_encoding=allow_encoding)
        pace = self._upstreams.pace
        hedge = Hedge(
            self._clock, self._upstreams.tasks, source, self._rivals(source), self._rival_failed
        )
        opened, body = await hedge.open(offset, allow_encoding=allow_encoding)
        if source.is_other_file and source.record is not None:
            await self._replaced(source.record)
        return opened, paced(body, self._clock, pace, partial(self._leave, opened))

    async def _leave(self, slow: UpstreamSource, reason: str) -> bool:
        """Whether to leave a source that is slow: once each, where another one has the file."""
        if slow.name not in self._left:
            self._left.add(slow.name)
            async with aclosing(self._rivals(slow)) as rivals:
                async for _ in rivals:
                    slow.health.stalled(reason)
                    return True
            self._left.discard(slow.name)
        return False

    async def _rivals(self, first: UpstreamSource) -> AsyncGenerator[UpstreamSource, None]:
        """Whoever else has the same file, and was not left for being slow."""
        for candidate in self._candidates():
            name = candidate.upstream.name
            if candidate is first.candidate or name in self._shunned or name in self._left:
                continue
            source = await self._source(candidate)
            if source is not None and source.file == first.file:
                yield source

    async def contradicts(self, size: int) -> bool:
        """See `Supply`. One that agrees with the answer settles it."""
        said: set[int] = set()
        for candidate in self._candidates():
            health = candidate.health
            is_in_doubt = self._nar is None or candidate.upstream.base_url == self._nar.upstream
            if is_in_doubt or health.is_sick:
                continue
            other = await self._source(candidate)
            if other is not None and not other.is_other_file and other.size is not None:
                said.add(other.size)
        return bool(said) and size not in said

    def _rival_failed(self, source: UpstreamSource, error: NcpsError) -> None:
        self.failures[source.name] = error
        self._upstreams.report(self._key.file_name, source.candidate, error)

    def allow_replacing(self) -> None:
        """See `Supply`; bytes that were stored once are not replaced."""
        self._may_replace = self._nar is not None and not self._nar.was_stored

    def lied(self, reason: str) -> None:
        """Note that the narinfo says something untrue of a file that is right."""
        if self._nar is not None:
            error = Corrupt(f"its narinfo is wrong, the NAR is right: {reason}")
            self._upstreams.blame(self._nar.upstream, self._key.file_name, error)

    def failed(self, source: Source, error: NcpsError) -> None:
        """Note, for the verdict, how a source failed, and count it."""
        self.failures[source.name] = error
        if isinstance(source, UpstreamSource):
            self._upstreams.count(source.candidate, error)

    async def stat(self) -> int | None:
        """Return the file's size if a source says one; raises the verdict if none has the file."""
        async with aclosing(self.each()) as sources:
            async for source in sources:
                try:
                    return await source.stat()
                except (NotFound, Unavailable, Corrupt) as error:
                    self.failures[source.upstream.name] = error
                    self._upstreams.report(self._key.file_name, source.candidate, error)
        raise verdict(self.failures, self._key.file_name)

    async def _place(self, candidate: Candidate) -> UpstreamSource:
        """URL and file at an upstream; found out once. NotFound, Unavailable, Corrupt."""
        base_url = candidate.upstream.base_url
        place = self._places.get(base_url)
        if place is None:
            place = self._places[base_url] = await self._find_place(candidate)
        return place

    async def _find_place(self, candidate: Candidate) -> UpstreamSource:
        nar, base_url = self._nar, candidate.upstream.base_url
        if nar is None or (not nar.origin_url and nar.nar_hash is None):
            return UpstreamSource(candidate, self._key.url, self._key.file_name, self._clock)
        file = str(nar.file_hash or nar.upstream)
        if nar.upstream == base_url and nar.origin_url:
            return UpstreamSource(candidate, nar.origin_url, file, self._clock, size=nar.file_size)
        other = await self._same_nar(candidate, nar)
        if other is None:
            raise NotFound("has not the same NAR")
        is_same = is_same_file(nar, other)
        if not is_same:
            file = str(other.file_hash or base_url)
        return UpstreamSource(
            candidate,
            other.origin_url,
            file,
            self._clock,
            is_other_file=is_same is False,
            size=other.file_size,
            record=other,
        )
