"""Snapshots of metrics, which are sent as bytes and added."""

from __future__ import annotations

import math

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Malformed
from ncps.observe.metrics import Metrics
from ncps.observe.snapshots import Snapshot, Way


class SnapshotTests(SynchronousTestCase):
    def test_the_way_there_and_back_loses_nothing(self) -> None:
        """Every value arrives in the same order, infinities too."""
        registry = CollectorRegistry()
        gauge = Gauge("g", "A gauge.", ["a", "b"], registry=registry)
        for number, value in enumerate((0.1, 1e300, math.inf, -math.inf)):
            gauge.labels(f'"\\\n{number}', "ü").set(value)
        for source in (registry, Metrics(["up"]).registry):
            found = Snapshot.of(source)
            self.assertEqual(found, Snapshot.read(found.render()))
            for write in (generate_latest, openmetrics):
                self.assertEqual(write(source), write(Snapshot.read(found.render())))

    def test_nonsense_is_malformed(self) -> None:
        """Bytes that are no snapshot raise Malformed."""
        for data in (b"", b"{", b"1", b"[1]", b'[["a", "b", "c", [["d", [["e"]], 1]]]]', b"\xff"):
            self.assertRaises(Malformed, Snapshot.read, data)

    def test_figures_that_outlive_a_process(self) -> None:
        """Counters and histograms do; gauges do not."""
        kinds = {f.kind for f in Snapshot.of(Metrics().registry).growing().families.values()}
        self.assertEqual({"counter", "histogram"}, kinds)

    def test_ways_are_for_gauges(self) -> None:
        """Counters are always summed, and so are gauges without a way."""
        found, other = Snapshot(), CollectorRegistry()
        Counter("c", "C.", registry=other).inc(2)
        for name in ("g", "own", "least", "most"):
            Gauge(name, "G.", registry=other).set(5)
        ways: dict[str, Way] = {"c": "own", "own": "own", "least": "least", "most": "most"}
        for _ in range(2):
            found.add(Snapshot.of(other), ways)
        values = {name: f.samples for name, f in found.families.items()}
        self.assertEqual(4, values["c"]["c_total", ()])
        self.assertEqual(10, values["g"]["g", ()])
        self.assertEqual(5, values["own"]["own", ()])
        self.assertEqual(5, values["least"]["least", ()])
        self.assertEqual(5, values["most"]["most", ()])
