"""Sources: where the bytes of one NAR can be fetched, the best first, found out as needed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Container
from contextlib import aclosing
from typing import Protocol

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from ncps.cache.choose import Candidate, Upstreams
from ncps.cache.policy import verdict
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

    async def open(self, offset: int, *, allow_encoding: bool) -> UpstreamBody:
        """Open the bytes from `offset` on; see `Upstream.open_nar`."""

    def broke_off(self, reason: str) -> None:
        """Note that a body ended before its time."""


class Supply(Protocol):
    """Where a download gets its sources from, round after round.

    :ivar failures: how each failed that was asked since this was last cleared, by name.
    """

    failures: dict[str, NcpsError]

    def each(
        self, shunned: Container[str] = (), suspects: Container[str] = ()
    ) -> AsyncGenerator[Source, None]:
        """One round; names in `shunned` are left out, those in `suspects` come last."""

    def failed(self, source: Source, error: NcpsError) -> None:
        """Note, for the verdict, how a source failed."""


@frozen
class UpstreamSource(Source):
    """One upstream and the URL under which it has the bytes."""

    candidate: Candidate
    url: str
    file: str
    clock: IReactorTime

    @property
    def upstream(self) -> Upstream:
        """Whom to ask."""
        return self.candidate.upstream

    @property
    def name(self) -> str:
        return self.upstream.name

    async def open(self, offset: int, *, allow_encoding: bool) -> UpstreamBody:
        """See `Upstream.open_nar`; its health learns from how it went."""
        return await self.candidate.ask(
            lambda upstream: upstream.open_nar(
                self.url, offset=offset, allow_encoding=allow_encoding
            ),
            self.clock,
        )

    def broke_off(self, reason: str) -> None:
        self.candidate.health.failed(reason)

    async def stat(self) -> int | None:
        """See `Upstream.stat_nar`."""
        return await self.candidate.ask(lambda upstream: upstream.stat_nar(self.url), self.clock)


class Sources(Supply):
    """All upstream sources of one NAR: its origin, then whoever says it has the very same file.

    :param nar: what is known of it; None if no narinfo is known: then the file's name is taken
        for its hash, and every upstream may have it under the conventional URL.
    :param same_nar: asks an upstream for its record of the same NAR; see `NarInfos.same_nar`.
    """

    def __init__(
        self,
        clock: IReactorTime,
        upstreams: Upstreams,
        key: NarKey,
        nar: NarRecord | None,
        same_nar: Callable[[Candidate, NarRecord], Awaitable[NarRecord | None]],
    ) -> None:
        self._clock = clock
        self._upstreams = upstreams
        self._key = key
        self._nar = nar
        self._same_nar = same_nar
        self._places: dict[str, tuple[str, str]] = {}
        self.failures: dict[str, NcpsError] = {}

    async def each(
        self, shunned: Container[str] = (), suspects: Container[str] = ()
    ) -> AsyncGenerator[UpstreamSource, None]:
        """One round through all sources that may be asked now; failures to find one are noted.

        :param shunned: names of upstreams to leave out.
        :param suspects: names of upstreams to be asked after all others.
        """
        first = self._nar.upstream if self._nar is not None else ""
        candidates = self._upstreams.ordered(first)
        for candidate in sorted(candidates, key=lambda c: c.upstream.name in suspects):
            name = candidate.upstream.name
            if name in shunned:
                continue
            health = candidate.health
            if not health.may_ask:
                self.failures[name] = Unavailable(
                    f"away ({health.last_error})", retry_after=health.retry_after_s
                )
                continue
            try:
                url, file = await self._place(candidate)
            except (NotFound, Unavailable, Corrupt) as error:
                self.failures[name] = error
                self._upstreams.report(self._key.file_name, candidate, error)
                continue
            yield UpstreamSource(candidate, url, file, self._clock)

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

    async def _place(self, candidate: Candidate) -> tuple[str, str]:
        """URL and file at an upstream; found out once."""
        upstream = candidate.upstream
        place = self._places.get(upstream.base_url)
        if place is None:
            place = self._places[upstream.base_url] = await self._find_place(candidate)
        return place

    async def _find_place(self, candidate: Candidate) -> tuple[str, str]:
        nar, upstream = self._nar, candidate.upstream
        if nar is None or not nar.origin_url:
            return self._key.url, self._key.file_name
        if nar.upstream != upstream.base_url:
            other = await self._same_nar(candidate, nar)
            if other is None:
                raise NotFound("has not the same file")
            nar = other
        return nar.origin_url, str(nar.file_hash or upstream.base_url)
