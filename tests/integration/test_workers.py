"""Worker threads, with real threads."""

from __future__ import annotations

import threading
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from ncps.aio.threads import Workers
from ncps.errors import Unavailable
from tests.contract.running import start

reactor = cast("Any", _reactor)


class WorkersTests(TestCase):
    def setUp(self) -> None:
        self.workers = Workers(reactor, "test", 2)
        self.gate = threading.Event()
        self.addCleanup(lambda: start(self.workers.stop(5)))
        self.addCleanup(self.gate.set)

    async def test_a_call_runs_in_a_named_thread(self) -> None:
        """Results come back, with the right arguments, from a thread with the pool's name."""
        self.workers.start()
        self.assertEqual(await self.workers.run(divmod, 17, 5), (3, 2))
        self.assertEqual(await self.workers.run(int, "ff", base=16), 255)
        name = await self.workers.run(lambda: threading.current_thread().name)
        self.assertIn("test", name)

    async def test_an_error_comes_back_as_it_was(self) -> None:
        """The caller that awaits a call gets its error."""
        self.workers.start()
        with self.assertRaises(ZeroDivisionError):
            await self.workers.run(divmod, 1, 0)

    async def test_no_more_threads_than_allowed(self) -> None:
        """Calls beyond the pool's size wait, and the gauges count them."""
        self.workers.start()
        calls = [start(self.workers.run(self.gate.wait)) for _ in range(5)]
        self.assertEqual((self.workers.running, self.workers.waiting), (2, 3))
        self.gate.set()
        await gatherResults(calls)
        self.assertEqual((self.workers.running, self.workers.waiting), (0, 0))

    async def test_a_cancelled_call_is_left_alone(self) -> None:
        """The caller continues immediately; the thread counts until its call is done."""
        self.workers.start()
        call = start(self.workers.run(self.gate.wait))
        failing = start(self.workers.run(lambda: self.gate.wait() and divmod(1, 0)))
        for each in (call, failing):
            each.cancel()
            with self.assertRaises(CancelledError):
                await each
        self.assertEqual(self.workers.running, 2)
        self.gate.set()
        self.assertEqual(await self.workers.stop(5), 0)
        self.assertEqual(self.workers.running, 0)

    async def test_stopping_waits_for_what_runs(self) -> None:
        """A stop waits for every accepted call and refuses new ones."""
        self.workers.start()
        calls = [start(self.workers.run(self.gate.wait)) for _ in range(4)]
        stopped = start(self.workers.stop(5))
        with self.assertRaises(Unavailable):
            await self.workers.run(int)
        self.gate.set()
        self.assertEqual(await stopped, 0)
        self.assertEqual(await gatherResults(calls), [True] * 4)

    async def test_a_stop_does_not_wait_for_ever(self) -> None:
        """After the deadline the rest is abandoned; a call without a thread never runs."""
        self.workers.start()
        ran: list[int] = []
        stuck = [start(self.workers.run(self.gate.wait)) for _ in range(2)]
        queued = start(self.workers.run(ran.append, 1))
        self.assertEqual(await self.workers.stop(0.05), 3)
        self.gate.set()
        await gatherResults(stuck)
        with self.assertRaises(Unavailable):
            await queued
        self.assertEqual(ran, [])

    async def test_nothing_runs_before_the_start_or_after_the_stop(self) -> None:
        """A pool that is not running refuses calls."""
        with self.assertRaises(Unavailable):
            await self.workers.run(int)
        self.assertEqual(await self.workers.stop(1), 0)
        self.workers.start()
        await self.workers.stop(1)
        with self.assertRaises(Unavailable):
            await self.workers.run(int)

    async def test_a_hanging_call_does_not_keep_the_process(self) -> None:
        """The threads are daemons: the end of the program does not wait for them."""
        self.workers.start()
        self.assertTrue(await self.workers.run(lambda: threading.current_thread().daemon))

    async def test_the_reactor_goes_on_meanwhile(self) -> None:
        """While a call blocks its thread, the reactor continues."""
        self.workers.start()
        call = start(self.workers.run(self.gate.wait))
        await deferLater(reactor, 0.01)
        self.assertFalse(call.called)
        self.gate.set()
        self.assertTrue(await call)
