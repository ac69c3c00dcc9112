"""The ledger: no record is lost, counted twice or kept long."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.observe.metrics import Metrics
from ncps.web.fast.ledger import DELAY_S, MOST, Access, Ledger
from tests.unit.web.test_accesslog import access


class LedgerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.metrics = Metrics()
        self.batches: list[list[str]] = []
        self.repeated: list[str] = []
        self.ledger = Ledger(
            clock=self.clock,
            metrics=self.metrics,
            access_log=lambda batch: self.batches.append([one.path for one in batch]),
            repeated=lambda batch: self.repeated.extend(one.path for one in batch),
        )

    def sample(self, name: str, access: Access) -> float | None:
        return self.metrics.registry.get_sample_value(
            f"http_server_request_duration_seconds_{name}",
            {
                "http_route": access.route,
                "http_request_method": access.method,
                "http_response_status_code": str(access.status),
            },
        )

    def test_written_together_after_a_while(self) -> None:
        """Requests within a quarter of a second are logged together."""
        self.ledger.add(access("/a"))
        self.clock.advance(DELAY_S / 2)
        self.ledger.add(access("/b"))
        self.assertEqual(self.batches, [])
        self.clock.advance(DELAY_S / 2)
        self.assertEqual(self.batches, [["/a", "/b"]])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_many_do_not_wait(self) -> None:
        """Under load, batches and memory are bounded."""
        for _ in range(MOST + 1):
            self.ledger.add(access())
        self.assertEqual([len(batch) for batch in self.batches], [MOST])
        self.clock.advance(DELAY_S)
        self.assertEqual([len(batch) for batch in self.batches], [MOST, 1])

    def test_a_scrape_misses_nothing(self) -> None:
        """A scrape counts requests that ended just before it, once."""
        one = access()
        for _ in range(3):
            self.ledger.add(one)
        for _ in range(2):
            self.assertEqual(self.sample("count", one), 3)
        self.assertAlmostEqual(self.sample("sum", one) or 0, 3 * one.elapsed)
        self.assertEqual(
            self.metrics.registry.get_sample_value("ncps_served_bytes_total", {"route": "/"}), 9
        )

    def test_only_hot_ones_are_told_of(self) -> None:
        """The page itself counts its own answers."""
        self.ledger.add(access("/a"))
        self.ledger.add(access("/b")._replace(is_hot=True))
        self.ledger.settle()
        self.assertEqual(self.repeated, ["/b"])

    def test_probes_are_counted_and_not_logged(self) -> None:
        """Health checks do not fill the log."""
        probe = access()._replace(route="/healthz")
        self.ledger.add(probe)
        self.ledger.settle()
        self.assertEqual((self.batches, self.sample("count", probe)), ([], 1))

    def test_settling_nothing_is_nothing(self) -> None:
        """An idle server writes nothing."""
        self.ledger.settle()
        self.assertEqual(self.batches, [])
