"""Sources: the places where the bytes of one NAR can be fetched, the best first.

URL, FileHash and FileSize of a narinfo are not signed. Two narinfos of one NAR, from two upstreams,
describe the same file if they agree on FileHash or on the hash in the URL. A file that differs is a
last resort, because bytes behind a URL never change (P5). It is fetched under two conditions: no
byte of the right file was ever stored or sent to a client, and all upstreams have failed to send
the right file, either for sure or twice.
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
from ncps.cache.narinfo.search import PathUnknown
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
        """Name of the file there.

        Two sources with the same name have the same bytes, so that one can continue after the
        other. Files with different names only agree in NarHash.
        """

    @property
    def origin(self) -> tuple[str, str] | None:
        """Base URL of an upstream, and the URL there by which the bytes can be fetched again."""

    @property
    def is_other_file(self) -> bool:
        """Whether the file surely differs from the narinfo's, with the same NAR inside."""

    async def open(self, offset: int, *, allow_encoding: bool) -> UpstreamBody:
        """Open the bytes from `offset` on; see `Upstream.open_nar`."""


Rounds = Callable[[Container[str], Container[str]], AsyncGenerator[Source, None]]
"""One round. It leaves out the sources of the first names, and yields those of the second last."""

SameNar = Callable[[Candidate, NarRecord], Awaitable[NarRecord | None]]
"""Asks an upstream for its record of the same NAR; see `NarInfos.same_nar`."""


@frozen
class UpstreamSource(Source):
    """One upstream and the URL under which it has the bytes.

    :param size: bytes of the file, as the upstream's narinfo says.
    :param record: the record made from that narinfo; None if it is the known narinfo.
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
        """Base URL of the upstream, and the URL there."""
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
        """See `Upstream.open_nar` and `opening.open_watched`."""
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
    """Finds out once, for each upstream, under which URL it has which file of one NAR.

    :param nar: the NAR's record; None if no narinfo is known. Then the file's name must be its
        hash, and each upstream may have it under the conventional URL.
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
        """Return an upstream as a source; raises NotFound, Unavailable or Corrupt if it is none."""
        base_url = candidate.upstream.base_url
        place = self._found.get(base_url)
        if place is None:
            place = self._found[base_url] = await self._find(candidate)
        return place

    async def _find(self, candidate: Candidate) -> UpstreamSource:
        nar, base_url = self._nar, candidate.upstream.base_url
        if nar is None or (not nar.origin_url and nar.nar_hash is None):
            return self._named(candidate)
        if nar.upstream == base_url and nar.origin_url:
            file = str(nar.file_hash or nar.upstream)
            return UpstreamSource(candidate, nar.origin_url, file, self._clock, size=nar.file_size)
        try:
            other = await self._same_nar(candidate, nar)
        except PathUnknown:
            if nar.file_hash is None or named_hash(self._key.url) != nar.file_hash:
                raise
            return self._named(candidate)
        if other is None:
            raise NotFound("does not have the same NAR")
        return self._listed(candidate, nar, other)

    def _named(self, candidate: Candidate) -> UpstreamSource:
        """Return the source whose upstream has the file under its own name."""
        return UpstreamSource(candidate, self._key.url, self._key.file_name, self._clock)

    def _listed(self, candidate: Candidate, nar: NarRecord, other: NarRecord) -> UpstreamSource:
        """Return the source in an upstream's narinfo, from which the record `other` was made."""
        is_same, base_url = is_same_file(nar, other), candidate.upstream.base_url
        file = nar.file_hash or nar.upstream if is_same else other.file_hash or base_url
        return UpstreamSource(
            candidate,
            other.origin_url,
            str(file),
            self._clock,
            is_other_file=is_same is False,
            size=other.file_size,
            record=other,
        )

    async def made_known(self, denied: UpstreamSource) -> UpstreamSource | None:
        """Ask an upstream that denies a NAR for its narinfo; return the source to ask once more.

        Another ncps that has lost its catalog finds a NAR only after a request for its narinfo, and
        any other cache may have another file of the NAR by now. Returns None if the upstream denies
        the narinfo, too, or was asked before.
        """
        nar = self._nar
        if nar is None or denied.record is not None or denied.name in self._asked_anew:
            return None
        self._asked_anew.add(denied.name)
        try:
            other = await self._same_nar(denied.candidate, nar)
        except (NotFound, Unavailable, Corrupt):
            return None
        if other is None:
            return None
        known = self._listed(denied.candidate, nar, other)
        if known.is_other_file:
            self._found[other.upstream] = known
            return known
        return evolve(denied, url=other.origin_url)


def is_same_file(nar: NarRecord, other: NarRecord) -> bool | None:
    """Return whether two narinfos of one NAR describe one file; None if they do not say."""
    ours, theirs = _names(nar), _names(other)
    has_same_url = nar.origin_url == other.origin_url and named_hash(nar.origin_url) is None
    if ours & theirs or has_same_url:
        return True
    return False if ours and theirs else None


def _names(nar: NarRecord) -> set[Hash]:
    """Return the hashes of the file that a narinfo says, in its URL and in FileHash."""
    names = {named_hash(nar.origin_url), nar.file_hash}
    if nar.compression != "none":
        names.discard(nar.nar_hash)  # a compressed file has another hash than its NAR
    return {name for name in names if name is not None}


class Sources:
    """All upstream sources of one NAR: its origin, then those that say they have the same file.

    :param nar: the NAR's record; None if no narinfo is known.
    :param replaced: awaited with the record of another file that is fetched instead.
    :ivar failures: the error of each source that has failed, by name. Callers clear it.
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
        self._may_replace = False
        self._rounds = 0
        self._shunned: Container[str] = ()
        self._left: set[str] = set()
        self.failures: dict[str, NcpsError] = {}

    async def each(
        self, shunned: Container[str] = (), suspects: Container[str] = ()
    ) -> AsyncGenerator[UpstreamSource, None]:
        """Yield each source that may be asked now; note in `failures` why others are none.

        :param shunned: names of upstreams to leave out.
        :param suspects: names of upstreams to ask after all others.
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
                if again is not None and again.is_other_file:
                    others.append(again)
                    self.failures[source.name] = Corrupt("has another file of the same NAR")
                elif again is not None:
                    yield again
        self._rounds += 1
        is_sure = not any(isinstance(error, Unavailable) for error in self.failures.values())
        if self._may_replace and (is_sure or self._rounds > 1):
            for source in others:
                yield source

    def _candidates(self, suspects: Container[str] = ()) -> list[Candidate]:
        """Return all upstreams in the order to ask: first the origin, unless it is unhealthy."""
        origin = self._nar.upstream if self._nar is not None else ""

        def rank(candidate: Candidate) -> tuple[bool, bool, bool, bool, int, float]:
            name, is_other = candidate.upstream.name, candidate.upstream.base_url != origin
            last, priority, latency_s = candidate.health.rank(candidate.upstream.priority)
            return name in suspects, name in self._left, last, is_other, priority, latency_s

        return sorted(self._upstreams.candidates, key=rank)

    async def _source(self, candidate: Candidate) -> UpstreamSource | None:
        """Return an upstream as a source; if it is none now, note a failure and return None."""
        name, health = candidate.upstream.name, candidate.health
        if not health.may_fetch or (is_unwanted() and not health.may_guess):
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
        """Open a source, or another one of the same file if that is faster; as `Source.open`."""
        if not isinstance(source, UpstreamSource) or len(self._upstreams.candidates) == 1:
            return source, await source.open(offset, allow_encoding=allow_encoding)
        pace = self._upstreams.pace
        hedge = Hedge(
            self._clock, self._upstreams.tasks, source, self._rivals(source), self._rival_failed
        )
        opened, body = await hedge.open(offset, allow_encoding=allow_encoding)
        return opened, paced(body, self._clock, pace, partial(self._leave, opened))

    async def chose(self, source: Source) -> None:
        """Note that another file takes the place of the narinfo's."""
        if isinstance(source, UpstreamSource) and source.record is not None:
            await self._replaced(source.record)

    async def _leave(self, slow: UpstreamSource, reason: str) -> bool:
        """Return whether to leave a slow source: once, and only if another has the file."""
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
        """Yield the other upstreams that have the same file and were not left as too slow."""
        for candidate in self._candidates():
            name = candidate.upstream.name
            if candidate is first.candidate or name in self._shunned or name in self._left:
                continue
            source = await self._source(candidate)
            if source is not None and source.file == first.file:
                yield source

    async def contradicts(self, size: int) -> bool:
        """Return whether the other upstreams' narinfos contradict the size that an answer says.

        One narinfo that agrees with the answer is enough for False.
        """
        said: set[int] = set()
        for candidate in self._candidates():
            health = candidate.health
            is_in_doubt = self._nar is None or candidate.upstream.base_url == self._nar.upstream
            if is_in_doubt or health.is_asked_last:
                continue
            other = await self._source(candidate)
            if other is not None and not other.is_other_file and other.size is not None:
                said.add(other.size)
        return bool(said) and size not in said

    def _rival_failed(self, source: UpstreamSource, error: NcpsError) -> None:
        self.failures[source.name] = error
        self._upstreams.report(self._key.file_name, source.candidate, error)

    def allow_replacing(self) -> None:
        """Accept another file of the NAR, because a client without a byte of it waits.

        No other file is accepted if bytes of the NAR were ever stored.
        """
        self._may_replace = self._nar is not None and not self._nar.was_stored

    def lied(self, reason: str) -> None:
        """Note that the narinfo says something false about a file that is right."""
        if self._nar is not None:
            error = Corrupt(f"its narinfo is wrong, the NAR is right: {reason}")
            self._upstreams.blame(self._nar.upstream, self._key.file_name, error)

    def failed(self, source: Source, error: NcpsError) -> None:
        """Note the error of a source for the verdict, and count it."""
        self.failures[source.name] = error
        if isinstance(source, UpstreamSource):
            self._upstreams.count(source.candidate, error)

    async def stat(self) -> int | None:
        """Return the file's size, None if unknown; raises the verdict if no source has the file."""
        self._rounds = 1  # no second round follows in which another file would do
        async with aclosing(self.each()) as sources:
            async for source in sources:
                try:
                    return await source.stat()
                except (NotFound, Unavailable, Corrupt) as error:
                    self.failures[source.upstream.name] = error
                    self._upstreams.report(self._key.file_name, source.candidate, error)
        raise verdict(self.failures, self._key.file_name)
