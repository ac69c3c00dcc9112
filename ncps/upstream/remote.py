"""RemoteCache: a binary cache reached over HTTP, as the `Upstream` port."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from functools import partial
from urllib.parse import urljoin, urlsplit

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime

from ncps.codec import decoder
from ncps.codec.ratio import Ratio
from ncps.errors import Corrupt, Malformed, NotFound, Unavailable, Unusable
from ncps.nix.cacheinfo import CacheInfo
from ncps.nix.narinfo import NarInfo
from ncps.ports import Segment, Upstream, UpstreamBody
from ncps.trail import MARK, UNCERTAIN
from ncps.upstream.agent import Answer, Client

MAX_CACHE_INFO_SIZE = 64 * 1024
QUERY_S = 30.0
"""How long a query may take in all, its wait for a connection and a trickling body included."""

_ABSENT = frozenset({403, 404, 410})
_REFUSALS = frozenset({401, 403, 407})
_CODECS = {
    "zstd": "zstd",
    "gzip": "gzip",
    "x-gzip": "gzip",
    "br": "br",
    "xz": "xz",
    "bzip2": "bzip2",
}
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)")


@frozen(kw_only=True)
class Observers:
    """Told of traffic, for the metrics: bytes of bodies, seconds to narinfos and heads of NARs."""

    fetched: Callable[[int], object] = lambda _: None
    narinfo_seconds: Callable[[float], object] = lambda _: None
    nar_seconds: Callable[[float], object] = lambda _: None


class RemoteCache(Upstream):
    """See `ncps.ports.Upstream`."""

    def __init__(
        self,
        client: Client,
        *,
        name: str,
        base_url: str,
        priority: int,
        clock: IReactorTime,
        observers: Observers = Observers(),
    ) -> None:
        self._client = client
        self._name = name
        self._base_url = base_url.rstrip("/")
        self._priority = priority
        self._clock = clock
        self._observers = observers
        self._fetched = observers.fetched

    @property
    def name(self) -> str:
        """Host, port and path."""
        return self._name

    @property
    def base_url(self) -> str:
        """Without a final slash."""
        return self._base_url

    @property
    def priority(self) -> int:
        """Lower is asked first."""
        return self._priority

    async def narinfo(self, digest: str) -> NarInfo:
        """See `Upstream.narinfo`."""
        began = self._clock.seconds()
        limit = self._client.bounds.narinfo_size
        text = await self._small(f"{digest}.narinfo", limit, "cache-narinfo-max-size")
        self._observers.narinfo_seconds(self._clock.seconds() - began)
        _check_text(text)
        try:
            return NarInfo.parse(text)
        except Malformed as error:
            raise Corrupt(f"not a narinfo: {error}", kind="malformed") from error

    async def cache_info(self) -> CacheInfo:
        """See `Upstream.cache_info`."""
        text = await self._small("nix-cache-info", MAX_CACHE_INFO_SIZE)
        try:
            return CacheInfo.parse(text)
        except Malformed as error:
            raise Corrupt(f"not a nix-cache-info: {error}", kind="malformed") from error

    async def _small(self, path: str, limit: int, name: str = "") -> bytes:
        """Fetch a text of at most `limit` bytes, all of it within `QUERY_S`.

        :param name: of the limit, if it is a setting.
        """
        async with self._client.queries:
            text = Deferred.fromCoroutine(self._read_small(path, limit, name))
            try:
                return await text.addTimeout(QUERY_S, self._clock)
            except DeferredTimeout:
                raise Unavailable(f"{path} took more than {QUERY_S:g} s", timed_out=True) from None

    async def _read_small(self, path: str, limit: int, name: str) -> bytes:
        answer = await self._client.request("GET", f"{self._base_url}/{path}")
        try:
            _check_status(answer)
            pieces: list[bytes] = []
            size = 0
            async for piece in _decoded(answer, self._fetched):
                pieces.append(piece)
                size += len(piece)
                if size > limit:
                    if name:
                        self._client.reached(name)
                    raise Corrupt(f"{path} is larger than {limit} bytes")
            return b"".join(pieces)
        finally:
            answer.body.close()

    async def stat_nar(self, url: str) -> int | None:
        """See `Upstream.stat_nar`."""
        async with self._client.queries:
            answer = await self._client.request("HEAD", self._nar_url(url))
            answer.body.close()
        _check_status(answer)
        return None if answer.encoding else answer.content_length

    async def open_nar(
        self, url: str, *, offset: int = 0, allow_encoding: bool = False
    ) -> UpstreamBody:
        """See `Upstream.open_nar`."""
        await self._client.transfers.acquire()
        answer: Answer | None = None
        began = self._clock.seconds()
        try:
            answer = await self._client.request(
                "GET",
                self._nar_url(url),
                headers={"range": f"bytes={offset}-"} if offset else None,
                accept_encoding="zstd" if allow_encoding and not offset else "identity",
            )
            start, total = _extent(answer, offset)
            self._observers.nar_seconds(self._clock.seconds() - began)
            # What was asked for has a size to be held to; what was not has nothing but this.
            ratio = None if allow_encoding else self._ratio()
            chunks = _decoded(answer, self._fetched, ratio)
            return _NarBody(answer, chunks, start, total, self._client.transfers.release)
        except BaseException:
            if answer is not None:
                answer.body.close()
            self._client.transfers.release()
            raise

    def _ratio(self) -> Ratio:
        client = self._client
        return Ratio(client.bounds.ratio, partial(client.reached, "cache-max-decompression-ratio"))

    def _nar_url(self, url: str) -> str:
        try:
            target = urljoin(f"{self._base_url}/", url)
            scheme = urlsplit(target).scheme
        except ValueError:
            raise Corrupt("a NAR URL that is none") from None
        if scheme not in {"http", "https"} or (
            scheme == "http" and self._base_url.startswith("https:")
        ):
            raise Corrupt(f"a NAR URL of scheme {scheme} is not followed")
        return target


def _check_text(text: bytes) -> None:
    """Raise Unusable for what an upstream says instead of that it has no narinfo."""
    begin = text[:100].lstrip()
    if not begin:
        raise Unusable("not a narinfo but an empty answer", kind="malformed")
    if begin.startswith(b"<"):
        raise Unusable("not a narinfo but a web page", kind="malformed")


def _check_status(answer: Answer) -> None:
    """Raise what the status means; 200 and 206 pass."""
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
    """Offset of the first byte of the answer, and the size of the whole object if it says so."""
    if answer.status == 416:
        if answer.header("content-range") != f"bytes */{offset}":
            raise Corrupt(f"the upstream's file ends before byte {offset}")
        return offset, offset  # all of it had come, only its end was in doubt
    _check_status(answer)
    if "text/html" in answer.header("content-type").lower():
        raise Corrupt("a web page instead of a NAR")
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


async def _decoded(
    answer: Answer, fetched: Callable[[int], object], ratio: Ratio | None = None
) -> AsyncIterator[bytes]:
    if not answer.encoding:
        async for chunk in answer.body:
            fetched(len(chunk))
            yield chunk
        return
    name = _CODECS.get(answer.encoding)
    if name is None:
        raise Corrupt(f"unknown Content-Encoding {answer.encoding[:40]!r}")
    codec = decoder(name)
    async for chunk in answer.body:
        fetched(len(chunk))
        if ratio is not None:
            ratio.took(len(chunk))
        for piece in codec.feed(chunk):
            if ratio is not None:
                ratio.gave(len(piece))
            yield piece
    codec.finish()


class _NarBody(UpstreamBody):
    """The body of a NAR answer; gives back its place among the transfers when closed."""

    def __init__(
        self,
        answer: Answer,
        chunks: AsyncIterator[bytes],
        start: int,
        total: int | None,
        release: Callable[[], object],
    ) -> None:
        self._answer = answer
        self._chunks = chunks
        self._start = start
        self._total = total
        self._release: Callable[[], object] | None = release

    @property
    def start(self) -> int:
        return self._start

    @property
    def total(self) -> int | None:
        return self._total

    @property
    def size(self) -> int | None:
        return None if self._total is None else self._total - self._start

    def segment(self) -> Segment | None:
        return None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _nothing() if self._answer.status == 416 else self._chunks

    def close(self) -> None:
        self._answer.body.close()
        if self._release is not None:
            self._release()
            self._release = None
