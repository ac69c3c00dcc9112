"""Names, labels and first values of the metrics, and their documentation."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from ncps.observe.metrics import Metrics
from ncps.ports import Totals

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| ((?:`\w+` ?)*)\|", re.MULTILINE)


def exposed(metrics: Metrics) -> dict[str, tuple[str, frozenset[str]]]:
    """Read back what a scraper sees: name -> type and labels."""
    found = {}
    for family in text_string_to_metric_families(generate_latest(metrics.registry).decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[name] = (family.type, frozenset(labels))
    return found


class MetricsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.metrics = Metrics(["cache.nixos.org"])
        self.metrics.lock_server_up("redis:6379")  # as the assembly does for each server

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    def test_every_metric_is_documented_as_it_is(self) -> None:
        """docs/metrics.md has each metric with its type and labels, and no other."""
        documented = {
            name: (kind, frozenset(re.findall(r"\w+", labels)))
            for name, kind, labels in ROW.findall(DOCUMENT.read_text())
        }
        self.assertEqual(documented, exposed(self.metrics))

    def test_every_metric_has_series_from_the_start(self) -> None:
        """A rate includes the first event of each known series."""
        for family in self.metrics.registry.collect():
            self.assertTrue(family.samples, family.name)
        for name, labels in (
            ("ncps_nar_served_total", {"result": "miss", "status": "error"}),
            (
                "ncps_narinfo_served_total",
                {"result": "hit", "status": "success", "source": "database"},
            ),
            ("ncps_upstream_errors_total", {"kind": "timeout"}),
            ("ncps_fetched_bytes_total", {}),
        ):
            self.assertEqual(self.value(name, upstream_hostname="cache.nixos.org", **labels), 0)

    def test_no_series_but_those_named(self) -> None:
        """The library adds no series of creation times."""
        self.assertNotIn(b"_created", generate_latest(self.metrics.registry))

    def test_counting_reaches_the_registry(self) -> None:
        """A counter is read under its own name."""
        self.metrics.nar_served("hit", "success", "new.example").inc()
        self.metrics.nar_served("hit", "success", "new.example").inc()
        self.assertEqual(
            self.value(
                "ncps_nar_served_total",
                result="hit",
                status="success",
                upstream_hostname="new.example",
            ),
            2,
        )
        self.assertEqual(self.value("ncps_upstream_count_total"), 1)

    def test_totals_are_shown(self) -> None:
        """The gauges show the counts of the catalog."""
        self.metrics.set_totals(Totals(narinfos=3, nars_stored=2, bytes_stored=1000))
        self.assertEqual(self.value("ncps_narinfo_count"), 3)
        self.assertEqual(self.value("ncps_nar_file_count"), 2)
        self.assertEqual(self.value("ncps_store_total_size_bytes"), 1000)

    def test_the_quarantine_is_shown(self) -> None:
        """Files are gauges; removals have a series for each limit from the start."""
        self.metrics.set_quarantine(3, 1000)
        self.assertEqual(self.value("ncps_quarantine_files"), 3)
        self.assertEqual(self.value("ncps_quarantine_size_bytes"), 1000)
        for bound in ("count", "size", "age", "room"):
            self.assertEqual(self.value("ncps_quarantine_discarded_total", bound=bound), 0)

    def test_two_processes_in_one_do_not_mix(self) -> None:
        """Two services in one process, as in tests, count separately."""
        other = Metrics()
        other.downloads("published").inc()
        self.assertEqual(self.value("ncps_downloads_total", outcome="published"), 0)
