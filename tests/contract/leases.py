"""The contract of every implementation of Leases."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from ncps.ports import Leases
from tests.contract.running import Contract, start


class Log:
    """A list of lines in the order of writing; a test can wait for a line."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._waiting: dict[str, Deferred[None]] = {}

    def add(self, line: str) -> None:
        self.lines.append(line)
        waiting = self._waiting.pop(line, None)
        if waiting is not None:
            waiting.callback(None)

    async def seen(self, line: str) -> None:
        """Wait until the log contains the line."""
        if line not in self.lines:
            waiting = self._waiting[line] = Deferred()
            await waiting
            await _when_all_is_quiet()


async def _when_all_is_quiet() -> None:
    """Wait until the writer of a line has finished its step; without a reactor there is no wait."""
    from twisted.internet import reactor

    await deferLater(reactor, 0)


class LeasesContract(Contract):
    """Promises within one process.

    :ivar leases: the leases of one process, made with `address`.
    :ivar is_fencing: whether the leases have fences.
    """

    leases: Leases
    address = "http://replica-1.example:8501"
    is_fencing = True

    def setUp(self) -> None:
        super().setUp()
        self.log = Log()

    def holder(
        self, who: str, name: str = "a", leases: Leases | None = None
    ) -> tuple[Deferred[None], Deferred[None]]:
        """Hold the lease until the first Deferred is fired; the second fires at the end."""
        leave: Deferred[None] = Deferred()

        async def hold() -> None:
            async with (leases or self.leases).hold(name) as lease:
                self.assertFalse(lease.is_lost)
                self.log.add(f"{who} in")
                await leave
            self.log.add(f"{who} out")

        return leave, start(hold())

    async def test_one_holds_and_the_others_wait_in_line(self) -> None:
        """The first caller gets the lease first, and only one holds it at a time."""
        people = [self.holder(who) for who in "xyz"]
        await self.log.seen("x in")
        self.assertEqual(self.log.lines, ["x in"])
        for leave, _ in people:
            leave.callback(None)
        for _, done in people:
            await done
        order = [line for line in self.log.lines if line.endswith("in")]
        self.assertEqual(order, ["x in", "y in", "z in"])

    async def test_names_do_not_disturb_each_other(self) -> None:
        """Leases of two names can be held at the same time."""
        leave_a, done_a = self.holder("x", "a")
        await self.log.seen("x in")
        leave_b, done_b = self.holder("y", "b")
        await self.log.seen("y in")
        self.assertEqual(self.log.lines, ["x in", "y in"])
        leave_b.callback(None)
        await done_b
        leave_a.callback(None)
        await done_a

    async def test_any_text_is_a_name(self) -> None:
        """Names are compared byte by byte, however long and unusual they are."""
        names = ["a", "A", "a ", "a/../b", "a:b", "\N{SNOWMAN}", "%s", "0" * 300, "0" * 301]
        leases = [await self.leases.try_hold(name) for name in names]
        for lease in leases:
            assert lease is not None
            await lease.release()

    async def test_an_attempt_takes_only_a_free_lease(self) -> None:
        """An attempt never waits: it gets the lease or fails."""
        lease = await self.leases.try_hold("a")
        assert lease is not None
        self.assertIsNone(await self.leases.try_hold("a"))
        leave, done = self.holder("x")
        self.assertEqual(self.log.lines, [])
        await lease.release()
        await self.log.seen("x in")
        self.assertIsNone(await self.leases.try_hold("a"))
        leave.callback(None)
        await done
        again = await self.leases.try_hold("a")
        assert again is not None
        await again.release()

    async def test_a_lease_is_held_until_it_is_released(self) -> None:
        """A lease may be used without a context manager."""
        lease = await self.leases.take("a")
        self.assertFalse(lease.is_lost)
        self.assertIsNone(await self.leases.try_hold("a"))
        await lease.release()
        again = await self.leases.take("a")
        await again.release()

    async def test_releasing_twice_is_harmless(self) -> None:
        """The second release does not take the lease from the next holder."""
        lease = await self.leases.try_hold("a")
        assert lease is not None
        await lease.release()
        leave, done = self.holder("x")
        await self.log.seen("x in")
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

    async def test_a_cancelled_wait_leaves_the_queue(self) -> None:
        """A cancelled wait neither gets the lease nor keeps it from the later callers."""
        leave_x, done_x = self.holder("x")
        _, done_y = self.holder("y")
        leave_z, done_z = self.holder("z")
        await self.log.seen("x in")
        done_y.cancel()
        await self.assert_raises(CancelledError, done_y)
        self.assertEqual(self.log.lines, ["x in"])
        leave_x.callback(None)
        await done_x
        await self.log.seen("z in")
        leave_z.callback(None)
        await done_z
        self.assertNotIn("y in", self.log.lines)

    async def test_a_wait_that_is_cancelled_immediately_leaves_nothing(self) -> None:
        """A wait that is cancelled immediately, perhaps during the grant, does not keep it."""
        _, done = self.holder("x")
        done.cancel()
        await self.assert_raises(CancelledError, done)
        leave, done = self.holder("y")
        await self.log.seen("y in")
        leave.callback(None)
        await done

    async def test_a_failing_holder_gives_the_lease_up(self) -> None:
        """An error inside the block releases the lease and propagates."""
        leave, done = self.holder("x")
        await self.log.seen("x in")
        leave.errback(ZeroDivisionError())
        await self.assert_raises(ZeroDivisionError, done)
        lease = await self.leases.try_hold("a")
        assert lease is not None
        await lease.release()

    async def test_a_cancelled_holder_gives_the_lease_up(self) -> None:
        """Cancelling the work inside the block releases the lease."""
        _, done = self.holder("x")
        await self.log.seen("x in")
        done.cancel()
        await self.assert_raises(CancelledError, done)
        lease = await self.leases.try_hold("a")
        assert lease is not None
        await lease.release()

    async def test_the_holder_can_be_found(self) -> None:
        """The address is that of the holder, and empty while the lease is free."""
        self.assertEqual(await self.leases.holder("a"), "")
        async with self.leases.hold("a"):
            self.assertEqual(await self.leases.holder("a"), self.address)
            self.assertEqual(await self.leases.holder("b"), "")
        self.assertEqual(await self.leases.holder("a"), "")

    async def test_every_grant_has_a_higher_number(self) -> None:
        """A fence is larger than all earlier ones of the name; 0 where there are no fences."""
        fences = []
        for _ in range(3):
            async with self.leases.hold("a") as lease:
                fences.append(lease.fence)
            lease_tried = await self.leases.try_hold("a")
            assert lease_tried is not None
            fences.append(lease_tried.fence)
            await lease_tried.release()
        if self.is_fencing:
            self.assertEqual(fences, sorted(set(fences)))
            self.assertGreater(fences[0], 0)
        else:
            self.assertEqual(set(fences), {0})


class SharedLeasesContract(LeasesContract):
    """Promises between processes; two objects represent two processes.

    :ivar other: another process's view of the same leases, made with `other_address`.
    """

    other: Leases
    other_address = "http://replica-2.example:8501"

    async def test_a_lease_of_one_process_excludes_the_other(self) -> None:
        """An attempt in the other process fails until the lease is released."""
        lease = await self.leases.try_hold("a")
        assert lease is not None
        self.assertIsNone(await self.other.try_hold("a"))
        await lease.release()
        there = await self.other.try_hold("a")
        assert there is not None
        self.assertIsNone(await self.leases.try_hold("a"))
        await there.release()

    async def test_a_release_here_ends_a_wait_there(self) -> None:
        """A waiter in another process gets the lease when it is released."""
        leave_x, done_x = self.holder("x")
        await self.log.seen("x in")
        leave_y, done_y = self.holder("y", leases=self.other)
        self.assertIsNone(await self.other.try_hold("a"))
        self.assertEqual(self.log.lines, ["x in"])
        leave_x.callback(None)
        await done_x
        await self.log.seen("y in")
        leave_y.callback(None)
        await done_y

    async def test_the_other_process_finds_the_holder(self) -> None:
        """The address is that of the present holder, in both processes."""
        async with self.leases.hold("a"):
            self.assertEqual(await self.other.holder("a"), self.address)
        async with self.other.hold("a"):
            self.assertEqual(await self.leases.holder("a"), self.other_address)
            self.assertEqual(await self.other.holder("a"), self.other_address)
        self.assertEqual(await self.other.holder("a"), "")

    async def test_numbers_grow_from_process_to_process(self) -> None:
        """Fences order the grants of all processes."""
        fences = []
        for leases in (self.leases, self.other, self.other, self.leases):
            async with leases.hold("a") as lease:
                fences.append(lease.fence)
        self.assertEqual(fences, sorted(set(fences)))

    async def test_two_that_wait_are_served_one_at_a_time(self) -> None:
        """All waiters in two processes get the lease, and never two at the same time."""
        inside = 0
        served: list[str] = []

        async def work(who: str, leases: Leases) -> None:
            nonlocal inside
            async with leases.hold("a"):
                inside += 1
                self.assertEqual(inside, 1)
                await self.leases.holder("b")  # gives others their chance
                self.assertEqual(inside, 1)
                inside -= 1
                served.append(who)

        jobs = [start(work(f"{n}", self.other if n % 2 else self.leases)) for n in range(8)]
        for job in jobs:
            await job
        self.assertEqual(len(served), 8)
        for line in ([w for w in served if int(w) % 2 == k] for k in (0, 1)):
            self.assertEqual(line, sorted(line))
