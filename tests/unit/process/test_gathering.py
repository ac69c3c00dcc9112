"""Gathering: the metrics of several workers in one answer."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import generate_latest
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Unavailable
from ncps.observe.metrics import Metrics
from ncps.observe.snapshots import Snapshot
from ncps.ports import Totals
from ncps.process.gathering import Gathering, Sibling
from tests.contract.running import start


class GatheringTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.one, self.two = Metrics(["up"]), Metrics(["up"])
        self.answer: Deferred[bytes] | None = None
        self.failing = False
        self.second = Gathering(self.two, self.shown(2), [])
        self.first = self.gathering(self.one)

    def gathering(self, metrics: Metrics) -> Gathering:
        return Gathering(metrics, self.shown(1), [Sibling(ask=self.ask, shown=self.shown(2))])

    def shown(self, number: int) -> Path:
        return self.directory / f"worker-{number}.figures"

    async def ask(self) -> bytes:
        if self.failing:
            raise Unavailable("it hangs")
        if self.answer is not None:
            return await self.answer
        return self.second.own().render()

    def value(self, sample: str, **labels: str) -> float:
        """Gather the metrics, and return one series."""
        found = self.successResultOf(start(self.first.all()))
        assert isinstance(found, Snapshot)
        for family in found.families.values():
            for (name, pairs), value in family.samples.items():
                if name == sample and labels.items() <= dict(pairs).items():
                    return value
        raise AssertionError(f"no {sample}")

    def test_counters_and_histograms_are_summed(self) -> None:
        """Series are added by label and bucket, also a series of only one worker."""
        self.one.downloads("published").inc(2)
        self.two.downloads("published").inc(3)
        self.two.downloads("failed").inc()
        self.two.downloads("odd").inc()
        for metrics in (self.one, self.two):
            metrics.process.loop_lag.observe(0.2)
        self.assertEqual(5, self.value("ncps_downloads_total", outcome="published"))
        self.assertEqual(1, self.value("ncps_downloads_total", outcome="failed"))
        self.assertEqual(1, self.value("ncps_downloads_total", outcome="odd"))
        self.assertEqual(2, self.value("ncps_event_loop_lag_seconds_bucket", le="0.25"))
        self.assertEqual(0, self.value("ncps_event_loop_lag_seconds_bucket", le="0.1"))
        self.assertEqual(2, self.value("ncps_event_loop_lag_seconds_count"))

    def test_gauges_become_one_as_they_mean(self) -> None:
        """Each gauge is combined in its own way: by sum, once, or by minimum."""
        self.one.set_totals(Totals(narinfos=10, nars_stored=5, bytes_stored=100))
        self.two.set_totals(Totals(narinfos=11, nars_stored=6, bytes_stored=110))
        self.one.connections.set(3)
        self.two.connections.set(4)
        self.one.most_connections.set(3)
        self.two.most_connections.set(4)
        self.one.upstream_healthy.set(1)
        self.two.upstream_healthy.set(0)
        self.assertEqual(10, self.value("ncps_narinfo_count"))
        self.assertEqual(100, self.value("ncps_store_total_size_bytes"))
        self.assertEqual(7, self.value("ncps_http_connections"))
        self.assertEqual(4, self.value("ncps_worker_connections_most"))
        self.assertEqual(0, self.value("ncps_upstream_count_healthy"))
        self.assertEqual(1, self.value("ncps_upstream_count_total"))
        self.assertEqual(2, self.value("ncps_workers_answering"))

    def test_a_silent_worker_stays_in_the_counters(self) -> None:
        """For a silent worker the others use its file, without gauges."""
        self.one.downloads("published").inc(2)
        self.two.downloads("published").inc(3)
        self.two.connections.set(4)
        self.assertEqual(5, self.value("ncps_downloads_total", outcome="published"))
        self.two.downloads("published").inc(100)
        self.failing = True
        self.assertEqual(5, self.value("ncps_downloads_total", outcome="published"))
        self.assertEqual(0, self.value("ncps_http_connections"))
        self.assertEqual(1, self.value("ncps_workers_answering"))

    def test_nonsense_of_a_sibling_counts_as_silence(self) -> None:
        """An invalid answer counts as silence."""
        for data in (b"", b"[1]", b'[["a"]]', b"\xff", b'[["a","gauge","",[["a",[],"x"]]]]'):
            self.answer = Deferred()
            self.answer.callback(data)
            self.assertEqual(1, self.value("ncps_workers_answering"), data)

    def test_a_successor_goes_on(self) -> None:
        """A successor begins with the metrics in the file."""
        self.one.downloads("published").inc(2)
        self.one.connections.set(9)
        self.assertEqual(2, self.value("ncps_downloads_total", outcome="published"))
        self.one = Metrics(["up"])
        self.first = self.gathering(self.one)
        self.assertEqual(2, self.value("ncps_downloads_total", outcome="published"))
        self.assertEqual(0, self.value("ncps_http_connections"))
        self.one.downloads("published").inc()
        self.assertEqual(3, self.value("ncps_downloads_total", outcome="published"))
        self.first = self.gathering(Metrics(["up"]))
        self.assertEqual(3, self.value("ncps_downloads_total", outcome="published"))

    def test_every_restart_is_counted_once(self) -> None:
        """Every restart is counted once, with a scrape in between or not."""
        self.first.count_lives(1)
        self.assertEqual(0, self.value("ncps_worker_restarts_total"))
        for life in (2, 5):
            self.first = self.gathering(Metrics())
            self.first.count_lives(life)
            self.assertEqual(life - 1, self.value("ncps_worker_restarts_total"))

    def test_a_place_that_cannot_be_written_is_no_error(self) -> None:
        """If the file cannot be written, the answer is complete nevertheless."""
        gathering = Gathering(self.one, self.directory / "missing" / "x", [])
        self.one.downloads("published").inc()
        self.successResultOf(start(gathering.all()))

    def test_the_exposition_is_as_of_one_process(self) -> None:
        """The text for a single worker is exactly that of its registry."""
        alone = Gathering(self.one, self.shown(3), [])
        self.one.downloads("published").inc()
        self.one.process.loop_lag.observe(0.3)
        found = self.successResultOf(start(alone.all()))
        self.assertEqual(generate_latest(self.one.registry), generate_latest(found))
