"""Spans: the steps of the work for a request, each of which knows the step that began it.

The span of the work that runs now is in a context variable, so no function passes it on. It follows
the work in these ways:

    async def           A coroutine that Twisted runs (`Deferred.fromCoroutine`, and so `Tasks` and
                        `respond`) keeps the context in which it was begun, through all its
                        awaits. Code outside does not see a value that is set there.
    await               An awaited coroutine runs in the context of its caller.
    Deferred            A callback runs in the context of the code that fires the Deferred, which
                        may be any code: begin no span in a callback.
    timer               `callLater` begins its function without a span. Code that needs one carries
                        the context (`contextvars.copy_context`), as `aio.race` does.
    thread              `aio.threads` runs each call in a copy of the caller's context.
    async generator     It runs in the context of the code that asks for its next value, so it must
                        not make a span the current one across a `yield`.
    shared work         A search or a download has one span. Its parent is the first request that
                        needs it, and the span of each further request has a link to it.

If traces are off, `span` only looks up one variable and returns one object that is always the same.
No method of a span raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar, Token
from types import MappingProxyType, TracebackType
from typing import Final, Literal

from attrs import frozen

Value = str | int | float | bool
Attributes = Mapping[str, Value]
NO_ATTRIBUTES: Final[Attributes] = MappingProxyType({})
Kind = Literal["internal", "server", "client"]
"""The role of a step in a request over a network: none, the server, the client."""


class Span:
    """One step of the work. This class records nothing; `observe.otel` has a class that does.

    :cvar is_recording: whether the step goes to a collector.
    :cvar trace_id: of all steps that began with one request, in hexadecimal; empty for none.
    :cvar span_id: of this step.
    """

    __slots__ = ()
    is_recording: bool = False
    trace_id: str = ""
    span_id: str = ""

    def child(
        self, name: str, kind: Kind = "internal", attributes: Attributes = NO_ATTRIBUTES
    ) -> Span:
        """Begin a step that is a part of this one."""
        return self

    def set(self, name: str, value: Value) -> None:
        """Set an attribute."""

    def set_all(self, facts: Attributes) -> None:
        """Set several attributes, faster than one after the other."""

    def link(self, other: Span) -> None:
        """Record that this step waits for another one, which it did not begin."""

    def event(self, name: str, attributes: Attributes = NO_ATTRIBUTES) -> None:
        """Record an event at this moment."""

    def rename(self, name: str) -> None:
        """Change the name, which may not be known at the beginning."""

    def fail(self, error: BaseException) -> None:
        """Record the error that ends this step; an absence, or a caller that left, is no error."""

    def failed(self, reason: str) -> None:
        """Record that this step has failed."""

    def end(self) -> None:
        """End the step; later calls do nothing."""

    def headers(self) -> dict[str, str]:
        """Return the headers with which another program can continue this trace, if any."""
        return {}


NO_SPAN: Final = Span()
_current: Final[ContextVar[Span]] = ContextVar("span", default=NO_SPAN)


@frozen
class TraceHeaders:
    """The headers of a request that another program began; each may come several times."""

    parent: tuple[str, ...] = ()
    state: tuple[str, ...] = ()


NO_HEADERS: Final = TraceHeaders()


class Tracer:
    """Begins traces. This class begins none; `observe.otel` has a class that does.

    :cvar is_on: whether spans may be recorded.
    """

    is_on: bool = False

    def begin(
        self,
        name: str,
        kind: Kind = "internal",
        attributes: Attributes = NO_ATTRIBUTES,
        caller: TraceHeaders = NO_HEADERS,
    ) -> Span:
        """Begin a step that no other step of this process began.

        :param caller: headers of another program, whose trace it continues; ignored if wrong.
        """
        return NO_SPAN


NO_TRACER: Final = Tracer()


def current() -> Span:
    """Return the span of the work that runs now; `NO_SPAN` for none."""
    return _current.get()


class Step:
    """A block in which a span is the current one.

    :param ends: whether the span ends with the block.
    """

    __slots__ = ("_ends", "_token", "span")

    def __init__(self, span: Span, *, ends: bool = True) -> None:
        self.span = span
        self._ends = ends
        self._token: Token[Span] | None = None

    def __enter__(self) -> Span:
        self._token = _current.set(self.span)
        return self.span

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._token is not None:
            with suppress(
                ValueError
            ):  # a garbage collection may end a coroutine in another context
                _current.reset(self._token)
        if self._ends:
            if error is not None:
                self.span.fail(error)
            self.span.end()


class _Nothing(Step):
    """The block of a step that is not recorded; all such steps share one object."""

    __slots__ = ()

    def __enter__(self) -> Span:
        return NO_SPAN

    def __exit__(self, *_: object) -> None:
        pass


_NOTHING: Final = _Nothing(NO_SPAN)


def span(name: str, attributes: Attributes = NO_ATTRIBUTES, kind: Kind = "internal") -> Step:
    """Return a block that is a step of the work that runs now."""
    parent = _current.get()
    if not parent.is_recording:
        return _NOTHING
    return Step(parent.child(name, kind, attributes))


def within(span: Span) -> Step:
    """Return a block in which a span is the current one; the span does not end with it."""
    return _NOTHING if span is NO_SPAN else Step(span, ends=False)
