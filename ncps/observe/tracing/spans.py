"""Spans: the steps of the work for a request, each of which knows the step that began it.

The span of the work that runs now is in a context variable, so no function passes it on. This is
how it follows the work:

    async def           A coroutine that Twisted runs (`Deferred.fromCoroutine`, and so `Tasks` and
                        `respond`) has the context of the moment at which it was begun, through all
                        of its awaits. A value set there is invisible outside.
    await               An awaited coroutine runs in the context of its caller.
    Deferred            A callback runs in the context of the code that fires the Deferred, which
                        may be any: begin no span in one.
    timer               `callLater` begins its function without a span. Code that needs one carries
                        the context (`contextvars.copy_context`), as `aio.race` does.
    thread              `aio.threads` runs each call in a copy of the caller's context.
    async generator     It runs in the context of the code that asks for its next value, so it must
                        not make a span the current one across a `yield`.
    shared work         A search or a download has one span: the first request that wants it is its
                        parent, and the span of each other request that joins it has a link to it.

If nothing is recorded, `span` looks up one variable and returns one object that is always the same.
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
"""The part in a conversation over a network: none, the one who answers, the one who asks."""


class Span:
    """One step of the work. This class records nothing; `observe.otel` has one that does.

    :cvar is_recording: whether anything that it is told goes to a collector.
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
        """Note a fact."""

    def set_all(self, facts: Attributes) -> None:
        """Note several facts, which is quicker than one after the other."""

    def link(self, other: Span) -> None:
        """Note that this step waits for another one, which it did not begin."""

    def event(self, name: str, attributes: Attributes = NO_ATTRIBUTES) -> None:
        """Note that something happened at this moment."""

    def rename(self, name: str) -> None:
        """Give it a name that was not known at its beginning."""

    def fail(self, error: BaseException) -> None:
        """Note the error that this step ends with; an absence and a caller that left are none."""

    def failed(self, reason: str) -> None:
        """Note that this step has failed."""

    def end(self) -> None:
        """End the step; later calls do nothing."""

    def headers(self) -> dict[str, str]:
        """Return the headers by which another program continues this trace; none without one."""
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
    """Begins traces. This class begins none; `observe.otel` has one that does.

    :cvar is_on: whether any span may ever be recorded.
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

        :param caller: continues the trace of another program; headers that are wrong are left out.
        """
        return NO_SPAN


NO_TRACER: Final = Tracer()


def current() -> Span:
    """Return the span of the work that runs now; `NO_SPAN` for none."""
    return _current.get()


class Step:
    """A block that a span is the current one in.

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
            with suppress(ValueError):  # the end of a coroutine that is garbage, elsewhere
                _current.reset(self._token)
        if self._ends:
            if error is not None:
                self.span.fail(error)
            self.span.end()


class _Nothing(Step):
    """The block of a step that is not recorded; one for all."""

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
    """Return a block in which a span is the current one; it goes on after the block."""
    return _NOTHING if span is NO_SPAN else Step(span, ends=False)
