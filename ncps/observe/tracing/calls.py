"""Ports whose calls are spans; the assembly wraps the adapters in them if traces are on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, TypeVar, cast

from ncps.aio.body import PassedBody
from ncps.nix.cacheinfo import CacheInfo
from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import NarKey
from ncps.nix.realisation import Realisation, RealisationKey
from ncps.observe.tracing.spans import (
    NO_ATTRIBUTES,
    Attributes,
    Span,
    Step,
    current,
    span,
    within,
)
from ncps.ports import Lease, Leases, Upstream, UpstreamBody

T = TypeVar("T")


class _Called:
    """A wrapper that passes all calls on, and makes a span for each coroutine."""

    def __init__(self, inner: object, name: str, attributes: Attributes) -> None:
        self._inner = inner
        self._name = name
        self._attributes = attributes

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not iscoroutinefunction(found):
            return found
        call = _as_span(found, f"{self._name}.{name}", self._attributes)
        setattr(self, name, call)  # the next look-up does not come here
        return call


def _as_span(function: Callable[..., Any], name: str, attributes: Attributes) -> Callable[..., Any]:
    @wraps(function)
    async def call(*arguments: Any, **named: Any) -> Any:
        with span(name, attributes) as step:
            if step.is_recording and arguments:
                _tell_subject(step.set, arguments[0])
            return await function(*arguments, **named)

    return call


def _tell_subject(tell: Callable[[str, str], None], subject: object) -> None:
    """Set the attribute that names the narinfo or the NAR of a call."""
    if isinstance(subject, NarKey):
        tell("ncps.hash", subject.file_name)
    elif isinstance(subject, str):
        tell("ncps.hash", subject[:64])
    else:
        key = getattr(subject, "key", None) or getattr(subject, "digest", None)
        if key is not None:
            _tell_subject(tell, key)


def called(port: T, name: str, attributes: Attributes = NO_ATTRIBUTES) -> T:
    """Return a port whose calls are spans.

    :param name: of the port; prefix of the names of its spans.
    :param attributes: attributes of each span.
    """
    return cast("T", _Called(port, name, attributes))


class CalledLeases(Leases):
    """Leases whose waits are spans."""

    def __init__(self, inner: Leases) -> None:
        self._inner = inner

    async def take(self, name: str) -> Lease:
        with span("lease.take", {"ncps.lease": name}) as step:
            lease = await self._inner.take(name)
            step.set("ncps.lease.fence", lease.fence)
            return lease

    async def try_hold(self, name: str) -> Lease | None:
        with span("lease.try_hold", {"ncps.lease": name}) as step:
            lease = await self._inner.try_hold(name)
            step.set("ncps.lease.is_free", lease is not None)
            return lease

    async def holder(self, name: str) -> str:
        with span("lease.holder", {"ncps.lease": name}):
            return await self._inner.holder(name)


class _Watched:
    """The chunks of a body, which are counted, and the span that ends with the body."""

    def __init__(self, body: UpstreamBody, step: Span) -> None:
        self._body = body
        self._step = step
        self._count = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        """Pass the chunks on."""
        try:
            async for chunk in self._body:
                self._count += len(chunk)
                yield chunk
        except Exception as error:
            self._step.fail(error)
            raise

    def end(self) -> None:
        """End the span."""
        self._step.set("ncps.bytes", self._count)
        self._step.end()


class CalledUpstream(Upstream):
    """An upstream with a span for each answer; the span of a NAR lasts as long as its body."""

    def __init__(self, inner: Upstream) -> None:
        self._inner = inner

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def base_url(self) -> str:
        return self._inner.base_url

    @property
    def priority(self) -> int:
        return self._inner.priority

    async def narinfo(self, digest: str) -> NarInfo:
        with self._step("narinfo", {"ncps.hash": digest}):
            return await self._inner.narinfo(digest)

    async def realisation(self, key: RealisationKey) -> Realisation:
        with self._step("realisation", {"ncps.realisation": key.path}):
            return await self._inner.realisation(key)

    async def cache_info(self) -> CacheInfo:
        with self._step("cache_info"):
            return await self._inner.cache_info()

    async def text(self, path: str, limit: int) -> bytes:
        with self._step("text", {"ncps.extra": path[:64]}):
            return await self._inner.text(path, limit)

    async def stat_nar(self, url: str) -> int | None:
        with self._step("stat_nar"):
            return await self._inner.stat_nar(url)

    async def open_nar(
        self, url: str, *, offset: int = 0, allow_encoding: bool = False
    ) -> UpstreamBody:
        parent = current()
        if not parent.is_recording:
            return await self._inner.open_nar(url, offset=offset, allow_encoding=allow_encoding)
        facts: Attributes = {
            "ncps.upstream": self.name,
            "ncps.offset": offset,
            "ncps.is_resume": offset > 0,
        }
        step = parent.child("upstream.open_nar", attributes=facts)
        try:
            with within(step):
                body = await self._inner.open_nar(url, offset=offset, allow_encoding=allow_encoding)
        except BaseException as error:
            step.fail(error)
            step.end()
            raise
        watched = _Watched(body, step)
        return PassedBody.over(body, watched.chunks(), watched.end)

    def _step(self, name: str, facts: Attributes = NO_ATTRIBUTES) -> Step:
        return span(f"upstream.{name}", {"ncps.upstream": self.name, **facts})
