"""Tests of leases within one process."""

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.locks.local import LocalLeases, LocalNotices
from ncps.observe.metrics import Metrics
from ncps.ports import Notice
from tests.contract.leases import LeasesContract
from tests.contract.running import start, synchronously
from tests.fakes.metrics import observed, series


@synchronously
class LocalLeasesTests(LeasesContract, SynchronousTestCase):
    leases: LocalLeases
    is_fencing = False

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.metrics = Metrics()
        self.leases = LocalLeases(self.clock, self.metrics, address=self.address)

    def tearDown(self) -> None:
        """Check that no name is kept after its last holder."""
        self.assertEqual(len(self.leases), 0)

    def test_a_line_of_cancelled_waiters_leaves_nothing(self) -> None:
        """A cancelled waiter keeps no name; the name is forgotten after its last holder."""
        leave, done = self.holder("x")
        waiting = [self.holder(str(number))[1] for number in range(50)]
        for each in waiting:
            each.cancel()
            self.failureResultOf(each)
        self.assertEqual(len(self.leases), 1)
        leave.callback(None)
        self.successResultOf(done)

    def test_cancelling_one_waiter_while_another_is_served(self) -> None:
        """The new holder of a lease may cancel the next waiter."""
        last: list[Deferred[None]] = []

        async def cancelling() -> None:
            async with self.leases.hold("a"):
                last[0].cancel()

        leave, done = self.holder("x")
        second = start(cancelling())
        last.append(self.holder("z")[1])
        leave.callback(None)
        self.successResultOf(done)
        self.successResultOf(second)
        self.failureResultOf(last[0])
        self.assertNotIn("z in", self.log.lines)

    def test_attempts_and_holds_are_observed(self) -> None:
        """Metrics learn of every success, every refusal, and how long a lease was held."""
        lease = self.successResultOf(self.leases.try_hold("a"))
        self.successResultOf(self.leases.try_hold("a"))
        self.clock.advance(3)
        self.successResultOf(lease.release())
        attempts = {"exclusive local success": 1, "exclusive local contention": 1}
        self.assertEqual(attempts, series(self.metrics.lock_acquisitions))
        held = observed(self.metrics.lock_hold_seconds("exclusive", "local"))
        self.assertEqual((1, 3.0), held)


class LocalNoticesTests(SynchronousTestCase):
    def test_notices_reach_no_subscriber(self) -> None:
        """A notice reaches no subscriber."""
        heard: list[Notice] = []
        notices = LocalNotices()
        notices.subscribe(heard.append)
        self.successResultOf(start(notices.publish(Notice("nar", "x"))))
        self.assertEqual(heard, [])
        self.assertTrue(notices.is_alone)
