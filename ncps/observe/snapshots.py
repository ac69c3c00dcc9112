"""Snapshot: all metrics of a registry at one moment, as a value that can be sent and added.

Counters and histograms of several processes are summed. For gauges it depends on their meaning:
`ncps.observe.metrics` gives each gauge a `Way`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, Protocol

from attrs import Factory, define
from prometheus_client import Metric

from ncps.errors import Malformed

Sample = tuple[str, tuple[tuple[str, str], ...]]
"""A name and its labels."""

Way = Literal["sum", "own", "least", "most"]
"""How the values of several processes become one: the sum, the own value, or an extreme."""


class Collector(Protocol):
    """The part of a registry that the exposition formats need."""

    def collect(self) -> Iterable[Metric]:
        """Return all metrics with their present values."""


@define
class Family:
    """One metric with all its series, in their order."""

    name: str
    kind: str
    text: str
    samples: dict[Sample, float] = Factory(dict)

    @property
    def is_growing(self) -> bool:
        """Whether its values only grow, so that those of a process that ended must be kept."""
        return self.kind in {"counter", "histogram"}


@define
class Snapshot:
    """All metrics of a process, or of several, at one moment."""

    families: dict[str, Family] = Factory(dict)

    @classmethod
    def of(cls, registry: Collector) -> Snapshot:
        """Read a registry."""
        found = cls()
        for metric in registry.collect():
            family = Family(metric.name, metric.type, metric.documentation)
            for sample in metric.samples:
                family.samples[sample.name, tuple(sample.labels.items())] = sample.value
            found.families[family.name] = family
        return found

    @classmethod
    def read(cls, data: bytes) -> Snapshot:
        """Read the bytes that `render` wrote. Raises Malformed for other bytes."""
        found = cls()
        try:
            for name, kind, text, samples in json.loads(data):
                family = Family(str(name), str(kind), str(text))
                for sample, labels, value in samples:
                    pairs = tuple((str(label), str(of)) for label, of in labels)
                    family.samples[str(sample), pairs] = float(value)
                found.families[family.name] = family
        except (ValueError, TypeError) as error:
            raise Malformed("not a snapshot of metrics") from error
        return found

    def render(self) -> bytes:
        """Write the snapshot as JSON."""
        rows = [
            (
                family.name,
                family.kind,
                family.text,
                [(name, labels, value) for (name, labels), value in family.samples.items()],
            )
            for family in self.families.values()
        ]
        return json.dumps(rows, separators=(",", ":")).encode()

    def growing(self) -> Snapshot:
        """Return the metrics whose values only grow."""
        return Snapshot({f.name: f for f in self.families.values() if f.is_growing})

    def add(self, other: Snapshot, ways: Mapping[str, Way]) -> None:
        """Add the metrics of another process.

        :param ways: by name of a gauge; other gauges are summed.
        """
        for family in other.families.values():
            ours = self.families.get(family.name)
            if ours is None:
                ours = self.families[family.name] = Family(family.name, family.kind, family.text)
            way = "sum" if family.is_growing else ways.get(family.name, "sum")
            for sample, value in family.samples.items():
                before = ours.samples.get(sample)
                if before is None:
                    ours.samples[sample] = value
                elif way == "sum":
                    ours.samples[sample] = before + value
                elif way == "least":
                    ours.samples[sample] = min(before, value)
                elif way == "most":
                    ours.samples[sample] = max(before, value)

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        for family in self.families.values():
            metric = Metric(family.name, family.text, family.kind)
            for (name, labels), value in family.samples.items():
                metric.add_sample(name, dict(labels), value)
            yield metric
