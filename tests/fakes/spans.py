"""Spans in memory."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from ncps.observe.tracing.spans import (
    NO_ATTRIBUTES,
    NO_HEADERS,
    Attributes,
    Kind,
    Span,
    TraceHeaders,
    Tracer,
    Value,
)

_numbers: Iterator[int] = count(1)


class MemorySpan(Span):
    """A span that keeps what it is told.

    :ivar children: in the order in which they began.
    """

    def __init__(self, name: str, attributes: Attributes = NO_ATTRIBUTES) -> None:
        self.is_recording = True
        self.span_id = f"{next(_numbers):016x}"
        self.trace_id = self.span_id * 2
        self.name = name
        self.facts = dict(attributes)
        self.children: list[MemorySpan] = []
        self.links: list[Span] = []
        self.events: list[tuple[str, Attributes]] = []
        self.errors: list[object] = []
        self.has_ended = False

    def child(
        self, name: str, kind: Kind = "internal", attributes: Attributes = NO_ATTRIBUTES
    ) -> Span:
        made = MemorySpan(name, attributes)
        made.trace_id = self.trace_id
        self.children.append(made)
        return made

    def set(self, name: str, value: Value) -> None:
        self.facts[name] = value

    def set_all(self, facts: Attributes) -> None:
        self.facts.update(facts)

    def link(self, other: Span) -> None:
        if other.span_id:
            self.links.append(other)

    def event(self, name: str, attributes: Attributes = NO_ATTRIBUTES) -> None:
        self.events.append((name, attributes))

    def rename(self, name: str) -> None:
        self.name = name

    def fail(self, error: BaseException) -> None:
        self.errors.append(error)

    def failed(self, reason: str) -> None:
        self.errors.append(reason)

    def end(self) -> None:
        self.has_ended = True

    def headers(self) -> dict[str, str]:
        return {"traceparent": f"00-{self.trace_id}-{self.span_id}-01"}

    def find(self, name: str) -> list[MemorySpan]:
        """Return all spans of a name below this one."""
        found = [child for child in self.children if child.name == name]
        return found + [each for child in self.children for each in child.find(name)]


class MemoryTracer(Tracer):
    """Keeps the spans that it begins.

    :ivar begun: the spans, with the headers that each continues.
    """

    is_on = True

    def __init__(self) -> None:
        self.begun: list[tuple[MemorySpan, TraceHeaders]] = []

    def begin(
        self,
        name: str,
        kind: Kind = "internal",
        attributes: Attributes = NO_ATTRIBUTES,
        caller: TraceHeaders = NO_HEADERS,
    ) -> Span:
        made = MemorySpan(name, attributes)
        self.begun.append((made, caller))
        return made
