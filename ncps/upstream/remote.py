"""RemoteCache: a binary cache over HTTP, as the `Upstream` port."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from functools import partial
from urllib.parse import urljoin, urlsplit

from attrs import field, frozen
from twisted.internet.interfaces import IReactorTime

from ncps.aio.body import PassedBody
from ncps.aio.bulkhead import Bulkhead
from ncps.aio.threads import Threads
from ncps.aio.waiting import within
from ncps.codec.ratio import Ratio
from ncps.errors import (
    Corrupt,
    Malformed,
    NotFound,
    Oversized,
    Unavailable,
    Unconfirmed,
    Unusable,
)
from ncps.nix.cacheinfo import CacheInfo
from ncps.nix.narinfo import NarInfo
from ncps.nix.realisation import END, MAX_SIZE, Realisation, RealisationKey
from ncps.observe.metrics import Metrics
from ncps.peering.trail import MARK, UNCERTAIN
from ncps.ports import Upstream, UpstreamBody
from ncps.upstream.agent import Answer, Client
from ncps.upstream.content import decoded, is_page, no_page

MAX_CACHE_INFO_SIZE = 64 * 1024
QUERY_S = 30.0
"""Seconds that a query may take, with its wait for a connection and a slow body."""

INLINE_SIZE = 64 * 1024
"""Bytes of a narinfo that is parsed in the reactor's thread, at most."""

_ABSENT = frozenset({403, 404, 410})
_NO_HEAD = frozenset({400, 403, 405, 501})
"""Answers to HEAD after which GET may get a NAR: the server refuses the method, or the URL has a
signature for GET only. 403 may also mean absence, as for S3."""
_REFUSALS = frozenset({401, 403, 407})
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)")


def _without_slash(url: str) -> str:
    return url.rstrip("/")


@frozen(kw_only=True)
class RemoteAddress:
    """The URL of a cache, and its priority; see `ncps.ports.Upstream`."""

    name: str
    base_url: str = field(converter=_without_slash)
    priority: int


@frozen(kw_only=True)
class AnswerLimits:
    """Bounds of an answer.

    :param narinfo_size: bytes of a narinfo, at most.
    :param max_ratio: bytes that one byte may become in decoding, if the encoding was not asked for.
    """

    narinfo_size: int
    max_ratio: int


class RemoteCache(Upstream):
    """A binary cache as an `Upstream`.

    :param workers: threads that parse long narinfos.
    :ivar limits: bounds of its answers.
    """

    def __init__(
        self,
        client: Client,
        address: RemoteAddress,
        *,
        clock: IReactorTime,
        workers: Threads,
        metrics: Metrics,
        limits: AnswerLimits,
    ) -> None:
        self._client = client
        self._address = address
        self._clock = clock
        self._workers = workers
        self._metrics = metrics
        self.limits = limits
        self._fetched = metrics.bytes_fetched(address.name).inc

    @property
    def name(self) -> str:
        """Host, port and path of the URL."""
        return self._address.name

    @property
    def base_url(self) -> str:
        """The URL, without a final slash."""
        return self._address.base_url

    @property
    def priority(self) -> int:
        """Lower is asked first."""
        return self._address.priority

    async def narinfo(self, digest: str) -> NarInfo:
        """See `Upstream.narinfo`."""
        began = self._clock.seconds()
        limit = self.limits.narinfo_size
        text, doubt = await self._small(f"{digest}.narinfo", limit, "cache-narinfo-max-size")
        self._metrics.narinfo_fetch_seconds.observe(self._clock.seconds() - began)
        _check_text(text, "a narinfo")
        try:
            if len(text) > INLINE_SIZE:
                return await self._workers.run(NarInfo.parse, text)
            return NarInfo.parse(text)
        except Malformed as error:
            raise doubt or Corrupt(f"not a narinfo: {error}", kind="malformed") from error

    async def text(self, path: str, limit: int) -> bytes:
        """See `Upstream.text`."""
        text, doubt = await self._small(path, limit)
        if doubt is not None:
            raise doubt
        if is_page(text):
            raise Unusable("a web page instead of a text", kind="malformed")
        return text

    async def realisation(self, key: RealisationKey) -> Realisation:
        """See `Upstream.realisation`."""
        text, doubt = await self._small(f"{key.path}{END}", MAX_SIZE, end=b"}")
        _check_text(text, "a realisation")
        try:
            if len(text) > INLINE_SIZE:
                return await self._workers.run(Realisation.parse, text, key)
            return Realisation.parse(text, key)
        except Malformed as error:
            raise doubt or Corrupt(f"not a realisation: {error}", kind="malformed") from error

    async def cache_info(self) -> CacheInfo:
        """See `Upstream.cache_info`."""
        text, doubt = await self._small("nix-cache-info", MAX_CACHE_INFO_SIZE)
        try:
            return CacheInfo.parse(text)
        except Malformed as error:
            wrong = Corrupt(f"not a nix-cache-info: {error}", kind="malformed")
            raise doubt or wrong from error

    async def _small(
        self, path: str, limit: int, name: str = "", end: bytes = b"\n"
    ) -> tuple[bytes, Unconfirmed | None]:
        """Fetch a text of at most `limit` bytes, completely within `QUERY_S` seconds.

        :param name: the name of the limit, if it is a setting.
        :param end: the last byte of a complete text.
        :return: the text, and the error to raise if it is incomplete; None if its end is confirmed.
        """
        async with self._client.turns.queries:
            text = self._read_small(path, limit, name, end)
            late = f"{path} took more than {QUERY_S:g} s"
            return await within(self._clock, QUERY_S, text, late)

    async def _read_small(
        self, path: str, limit: int, name: str, end: bytes
    ) -> tuple[bytes, Unconfirmed | None]:
        answer = await self._client.request("GET", f"{self.base_url}/{path}")
        doubt: Unconfirmed | None = None
        pieces: list[bytes] = []
        try:
            _check_status(answer)
            if answer.status == 206:
                raise Corrupt(f"a part of {path}, which was not asked for")
            size = 0
            async for piece in decoded(answer, self._fetched):
                pieces.append(piece)
                size += len(piece)
                if size > limit:
                    if name:
                        self._metrics.limit_reached(name).inc()
                    raise Oversized(f"{path} is larger than {limit} bytes")
        except Unconfirmed as error:
            doubt = error
        finally:
            answer.body.close()
        text = b"".join(pieces)
        if doubt is not None and not text.endswith(end):
            raise doubt  # the text may have been cut within a value
        return text, doubt

    async def stat_nar(self, url: str) -> int | None:
        """See `Upstream.stat_nar`. If HEAD is refused, ask for one byte by GET."""
        target = self._nar_url(url)
        async with self._client.turns.queries:
            answer = await self._client.request("HEAD", target)
            answer.body.close()
            if answer.status in _NO_HEAD:
                answer = await self._client.request("GET", target, headers={"range": "bytes=0-0"})
                answer.body.close()
        _check_status(answer)
        if answer.status == 206:
            match = _CONTENT_RANGE.fullmatch(answer.header("content-range"))
            return None if match is None or match[3] == "*" else int(match[3])
        return None if answer.encoding else answer.content_length

    async def open_nar(
        self, url: str, *, offset: int = 0, allow_encoding: bool = False
    ) -> UpstreamBody:
        """See `Upstream.open_nar`."""
        places = self._client.turns.transfers
        await places.acquire()
        answer: Answer | None = None
        began = self._clock.seconds()
        try:
            answer = await self._client.request(
                "GET",
                self._nar_url(url),
                headers={"range": f"bytes={offset}-"} if offset else None,
                accept_encoding="zstd" if allow_encoding and not offset else "identity",
                is_nar=True,
            )
            start, total = _extent(answer, offset)
            self._metrics.nar_fetch_seconds.observe(self._clock.seconds() - began)
            # A NAR whose encoding was asked for has a known size; others have only this bound.
            ratio = None if allow_encoding else self._ratio()
            chunks = decoded(answer, self._fetched, ratio)
            if not start:
                chunks = no_page(chunks)
            if answer.status == 416:
                chunks = _nothing()
            return PassedBody(chunks, partial(_closed, answer, places), start=start, total=total)
        except BaseException:
            if answer is not None:
                answer.body.close()
            places.release()
            raise

    def _ratio(self) -> Ratio:
        reached = self._metrics.limit_reached("cache-max-decompression-ratio").inc
        return Ratio(self.limits.max_ratio, reached)

    def _nar_url(self, url: str) -> str:
        try:
            target = urljoin(f"{self.base_url}/", url)
            scheme = urlsplit(target).scheme
        except ValueError:
            raise Corrupt("an invalid NAR URL") from None
        if scheme not in {"http", "https"} or (
            scheme == "http" and self.base_url.startswith("https:")
        ):
            raise Corrupt(f"a NAR URL of scheme {scheme} is not followed")
        return target


def _closed(answer: Answer, places: Bulkhead) -> None:
    """Release the place of a NAR among the transfers."""
    answer.body.close()
    places.release()


def _check_text(text: bytes, what: str) -> None:
    """Raise Unusable for a web page or an empty answer, which some servers send instead of 404."""
    begin = text[:100].lstrip()
    if not begin:
        raise Unusable(f"not {what} but an empty answer", kind="malformed")
    if begin.startswith(b"<"):
        raise Unusable(f"not {what} but a web page", kind="malformed")


def _check_status(answer: Answer) -> None:
    """Raise the error for the status of an answer, unless it is 200 or 206."""
    status = answer.status
    is_refusal = status in _REFUSALS
    if status in _ABSENT:
        is_certain = answer.header(MARK).lower() not in UNCERTAIN
        raise NotFound(f"status {status}", is_certain=is_certain, is_refusal=is_refusal)
    if status not in {200, 206}:
        retry_after = answer.retry_after_s
        raise Unavailable(
            f"status {status}", retry_after=retry_after, kind="status", is_refusal=is_refusal
        )
    if status == 206 and answer.encoding:
        raise Corrupt("a partial answer with a Content-Encoding")


def _extent(answer: Answer, offset: int) -> tuple[int, int | None]:
    """Return the offset of the answer's first byte, and the object's size if the answer has it."""
    if answer.status == 416:
        if answer.header("content-range") != f"bytes */{offset}":
            raise Corrupt(f"the upstream's file ends before byte {offset}")
        return offset, offset  # all bytes had arrived before; only the end was not sure
    _check_status(answer)
    if answer.status == 206:
        match = _CONTENT_RANGE.fullmatch(answer.header("content-range"))
        if match is None or not offset or int(match[1]) != offset:
            raise Corrupt("a range that was not asked for")
        return offset, None if match[3] == "*" else int(match[3])
    return 0, None if answer.encoding else answer.content_length


async def _nothing() -> AsyncIterator[bytes]:
    nothing: tuple[bytes, ...] = ()
    for chunk in nothing:
        yield chunk
