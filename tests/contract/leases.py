"""What every implementation of Leases keeps to."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from ncps.ports import Leases
from tests.contract.running import Contract, start


class LeasesContract(Contract):
    """Nothing here waits for time: leases within reach of one event loop change hands at once."""

    leases: Leases

    def setUp(self) -> None:
        super().setUp()
        self.log: list[str] = []

    def holder(self, who: str, name: str = "a") -> tuple[Deferred[None], Deferred[None]]:
        """Somebody who holds the lease until the first Deferred is fired; the second is the end."""
        leave: Deferred[None] = Deferred()

        async def hold() -> None:
            async with self.leases.hold(name) as lease:
                self.assertFalse(lease.is_lost)
                self.log.append(f"{who} in")
                await leave
            self.log.append(f"{who} out")

        return leave, start(hold())

    async def test_one_holds_and_the_others_wait_in_line(self) -> None:
        """Whoever came first is served first, one at a time."""
        people = [self.holder(who) for who in "xyz"]
        self.assertEqual(self.log, ["x in"])
        for leave, _ in people:
            leave.callback(None)
        for _, done in people:
            await done
        order = [line for line in self.log if line.endswith("in")]
        self.assertEqual(order, ["x in", "y in", "z in"])

    async def test_names_do_not_disturb_each_other(self) -> None:
        """Leases of two names are held at one time."""
        leave_a, done_a = self.holder("x", "a")
        leave_b, done_b = self.holder("y", "b")
        self.assertEqual(self.log, ["x in", "y in"])
        leave_b.callback(None)
        await done_b
        leave_a.callback(None)
        await done_a

    async def test_trying_takes_only_what_is_free(self) -> None:
        """An attempt never waits: it has the lease or not."""
        lease = await self.leases.try_hold("a")
        assert lease is not None
        self.assertIsNone(await self.leases.try_hold("a"))
        leave, done = self.holder("x")
        self.assertEqual(self.log, [])
        await lease.release()
        self.assertEqual(self.log, ["x in"])
        self.assertIsNone(await self.leases.try_hold("a"))
        leave.callback(None)
        await done
        again = await self.leases.try_hold("a")
        assert again is not None
        await again.release()

    async def test_releasing_twice_is_harmless(self) -> None:
        """The second release does not take the lease from the next holder."""
        lease = await self.leases.try_hold("a")
        assert lease is not None
        await lease.release()
        leave, done = self.holder("x")
        await lease.release()
        self.assertIsNone(await self.leases.try_hold("a"))
        leave.callback(None)
        await done

    async def test_an_early_release_is_kept_to(self) -> None:
        """A lease released inside its block is free, and the end of the block changes nothing."""
        async with self.leases.hold("a") as lease:
            await lease.release()
            other = await self.leases.try_hold("a")
            assert other is not None
        self.assertIsNone(await self.leases.try_hold("a"))
        await other.release()

    async def test_who_stops_waiting_leaves_the_line(self) -> None:
        """A cancelled wait neither gets the lease nor keeps it from those behind."""
        leave_x, done_x = self.holder("x")
        _, done_y = self.holder("y")
        leave_z, done_z = self.holder("z")
        done_y.cancel()
        await self.assert_raises(CancelledError, done_y)
        self.assertEqual(self.log, ["x in"])
        leave_x.callback(None)
        await done_x
        self.assertIn("z in", self.log)
        leave_z.callback(None)
        await done_z
        self.assertNotIn("y in", self.log)

    async def test_a_failing_holder_gives_the_lease_up(self) -> None:
        """An error inside the block frees the lease and goes on."""
        leave, done = self.holder("x")
        leave.errback(ZeroDivisionError())
        await self.assert_raises(ZeroDivisionError, done)
        lease = await self.leases.try_hold("a")
        assert lease is not None
        await lease.release()

    async def test_a_cancelled_holder_gives_the_lease_up(self) -> None:
        """Cancelling the work inside the block frees the lease."""
        _, done = self.holder("x")
        done.cancel()
        await self.assert_raises(CancelledError, done)
        lease = await self.leases.try_hold("a")
        assert lease is not None
        await lease.release()
