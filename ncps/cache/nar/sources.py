"""Sources: where the bytes of one NAR can be fetched, the best first, found out as needed.

URL, FileHash and FileSize of a narinfo are not signed. Two narinfos of one NAR, from two upstreams,
are taken to be of the same file if FileHash or the hash in the URL agrees. A file that differs is a
last resort, since bytes behind a URL never change (P5). It is fetched only where no byte of the
right file was ever stored or went to a client, and after all upstreams have failed with that file,
for sure or twice.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Container
from contextlib import aclosing
from functools import partial
from typing import Protocol

from attrs import evolve, frozen
from twisted.internet.interfaces import IReactorTime

from ncps.aio.guess import is_unwanted
from ncps.ask.choose import Upstreams
from ncps.ask.health import Candidate, Health
from ncps.ask.opening import Hedge, open_watched, paced
from ncps.ask.policy import verdict
from ncps.errors import Corrupt, NcpsError, NotFound, Unavailable
from ncps.nix.hashes import Hash
from ncps.nix.narurl import NarKey, named_hash
from ncps.ports import NarRecord, Upstream, UpstreamBody


class Source(Protocol):
    """A place that may have the bytes of a NAR."""

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
        """Base URL of an upstream, and the URL there from which the bytes can be fetched again."""

    @property
    def is_other_file(self) -> bool:
        """Whether the file is surely another one than the narinfo's, with the same NAR inside."""

    async def open(self, offset: int, *, allow_encoding: bool) -> UpstreamBody:
        """Open the bytes from `offset` on; see `Upstream.open_nar`."""


Rounds = Callable[[Container[str], Container[str]], AsyncGenerator[Source, None]]
"""One round: sources of the first names are left out, those of the second names come last."""

SameNar = Callable[[Candidate, NarRecord], Awaitable[NarRecord | None]]
"""Asks an upstream for its record of the same NAR; see `NarInfos.same_nar`."""


@frozen
class UpstreamSource(Source):
    """One upstream and the URL under which it has the bytes.

    :param size: of the file, as its narinfo says.
    :param record: the record that its narinfo makes; None if that is the known narinfo.
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
        """The health of the upstream."""
        return self.candidate.health

    @property
    def upstream(self) -> Upstream:
        """The upstream to ask."""
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
        """See `Upstream.open_nar` and `pace.open_watched`."""
        return await open_watched(
            self.candidate,
            self.clock,
            lambda upstream: upstream.open_nar(
                self.url, offset=offset, allow_encoding=allow_encoding
            ),
            is_wanted,
        )

    async def stat(self) -> int | None:
        """See `Upstream.stat_nar`."""
        return await self.candidate.ask(lambda upstream: upstream.stat_nar(self.url), self.clock)


class Places:
    """The URL and the file that each upstream has of one NAR; found out once.

    :param nar: its record; None if no narinfo is known: then the file's name is taken for its
        hash, and every upstream may have it under the conventional URL.
    """

    def __init__(
        self, clock: IReactorTime, key: NarKey, nar: NarRecord | None, same_nar: SameNar
    ) -> None:
        self._clock = clock
        self._key = key
        self._nar = nar
        self._same_nar = same_nar
        self._found: dict[str, UpstreamSource] = {}
        self._asked_anew: set[str] = set()

    async def at(self, candidate: Candidate) -> UpstreamSource:
        """Return an upstream as a source. Raises NotFound, Unavailable or Corrupt if it is none."""
        base_url = candidate.upstream.base_url
        place = self._found.get(base_url)
        if place is None:
            place = self._found[base_url] = await self._find(candidate)
        return place

    async def _find(self, candidate: Candidate) -> UpstreamSource:
        nar, base_url = self._nar, candidate.upstream.base_url
        if nar is None or (not nar.origin_url and nar.nar_hash is None):
            return UpstreamSource(candidate, self._key.url, self._key.file_name, self._clock)
        file = str(nar.file_hash or nar.upstream)
        if nar.upstream == base_url and nar.origin_url:
            return UpstreamSource(candidate, nar.origin_url, file, self._clock, size=nar.file_size)
        other = await self._same_nar(candidate, nar)
        if other is None:
            raise NotFound("does not have the same NAR")
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

    async def made_known(self, denied: UpstreamSource) -> UpstreamSource | None:
        """Ask for the narinfo of a NAR that its upstream denies; None if that does not help.

        A cache like this one that has lost its catalog knows its NARs again once it was asked for
        their narinfos.
        """
        nar = self._nar
        if nar is None or denied.record is not None or denied.name in self._asked_anew:
            return None
        self._asked_anew.add(denied.name)
        try:
            other = await self._same_nar(denied.candidate, nar)
        except (NotFound, Unavailable, Corrupt):
            return None
        if other is None or not is_same_file(nar, other):
            return None
        return evolve(denied, url=other.origin_url)


def is_same_file(nar: NarRecord, other: NarRecord) -> bool | None:
    """Whether two narinfos of one NAR are of one file; None if they do not tell."""
    ours, theirs = _names(nar), _names(other)
    has_same_url = nar.origin_url == other.origin_url and named_hash(nar.origin_url) is None
    if ours & theirs or has_same_url:
        return True
    return False if ours and theirs else None


def _names(nar: NarRecord) -> set[Hash]:
    """Hashes that a narinfo says are those of the file."""
    names = {named_hash(nar.origin_url), nar.file_hash}
    if nar.compression != "none":
        names.discard(nar.nar_hash)  # a compressed file has another hash than its NAR
    return {name for name in names if name is not None}


class Sources:
    """All upstream sources of one NAR: its origin, then those that say they have the same file.

    :param nar: its record; None if no narinfo is known.
    :param replaced: awaited with the record of another file that is fetched instead.
    :ivar failures: how each failed that was asked since this was last cleared, by name.
    """

    def __init__(
        self,
        clock: IReactorTime,
        upstreams: Upstreams,
        key: NarKey,
        nar: NarRecord | None,
        same_nar: SameNar,
        replaced: Callable[[NarRecord], Awaitable[None]],
    ) -> None:
        self._clock = clock
        self._upstreams = upstreams
        self._key = key
        self._nar = nar
        self._places = Places(clock, key, nar, same_nar)
        self._replaced = replaced
        self._may_replace = self._is_settled = False
        self._rounds = 0
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
                is_denied = isinstance(self.failures.get(source.name), NotFound)
                again = await self._places.made_known(source) if is_denied else None
                if again is not None:
                    yield again
        self._rounds += 1
        is_sure = not any(isinstance(error, Unavailable) for error in self.failures.values())
        if self._may_replace and (is_sure or self._rounds > 1):
            for source in others:
                yield source

    def _candidates(self, suspects: Container[str] = ()) -> list[Candidate]:
        """All upstreams in the order in which to ask: the origin first, unless it is sick."""
        origin = self._nar.upstream if self._nar is not None else ""

        def rank(candidate: Candidate) -> tuple[bool, bool, bool, bool, int, float]:
            name, is_other = candidate.upstream.name, candidate.upstream.base_url != origin
            is_sick, priority, latency_s = candidate.health.rank(candidate.upstream.priority)
            return name in suspects, name in self._left, is_sick, is_other, priority, latency_s

        return sorted(self._upstreams.candidates, key=rank)

    async def _source(self, candidate: Candidate) -> UpstreamSource | None:
        """One upstream as a source; None, and a failure noted, if it is none now."""
        name, health = candidate.upstream.name, candidate.health
        if not health.may_fetch or (is_unwanted() and not health.is_healthy):
            self.failures[name] = Unavailable(
                f"away ({health.last_error})", retry_after=health.retry_after_s
            )
            return None
        try:
            return await self._places.at(candidate)
        except (NotFound, Unavailable, Corrupt) as error:
            self.failures[name] = error
            self._upstreams.report(self._key.file_name, candidate, error)
            return None

    async def open(
        self, source: Source, offset: int, *, allow_encoding: bool
    ) -> tuple[Source, UpstreamBody]:
        """Open a source, or another one of the same file if that is quicker. As `Source.open`."""
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
        """Whether to leave a slow source: once for each source, if another one has the file."""
        if slow.name not in self._left:
            self._left.add(slow.name)
            async with aclosing(self._rivals(slow)) as rivals:
                async for _ in rivals:
                    if not is_unwanted():
                        slow.health.stalled(reason)
                    return True
            self._left.discard(slow.name)
        return False

    async def _rivals(self, first: UpstreamSource) -> AsyncGenerator[UpstreamSource, None]:
        """The other upstreams that have the same file and were not left for being slow."""
        for candidate in self._candidates():
            name = candidate.upstream.name
            if candidate is first.candidate or name in self._shunned or name in self._left:
                continue
            source = await self._source(candidate)
            if source is not None and source.file == first.file:
                yield source

    async def contradicts(self, size: int) -> bool:
        """Whether other narinfos than the one in doubt say another size than an answer does.

        One that agrees with the answer settles it.
        """
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
        """Let another file of the NAR do: a client waits that has no byte yet.

        Bytes that were stored once are not replaced.
        """
        nar = self._nar
        self._may_replace = not self._is_settled and nar is not None and not nar.was_stored

    def refuse_replacing(self) -> None:
        """Let no other file do from now on: a client waits that may have a part of this one."""
        self._may_replace, self._is_settled = False, True

    def lied(self, reason: str) -> None:
        """Note that the narinfo says something untrue about a file that is right."""
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
