"""ResponseWriter with an outlet in memory and a clock that only tests advance."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import tcp
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from ncps.aio.streams import ClientGone, ResponseWriter, SendLimits, unsent


@implementer(IConsumer)
class Outlet:
    """A consumer that records its bytes and pauses its producer on demand."""

    def __init__(self) -> None:
        self.producer: ResponseWriter | None = None
        self.data = b""
        self.full_at = 10**9

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert self.producer is None
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, data: bytes) -> None:
        self.data += data
        if len(self.data) >= self.full_at:
            assert self.producer is not None
            self.producer.pauseProducing()


class ResponseWriterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.outlet = Outlet()
        self.aborted = 0
        self.why = ""
        self.pending = 0
        self.writer = self.writer_with(rate=0.0)
        self.addCleanup(self.writer.close)

    def writer_with(self, *, rate: float) -> ResponseWriter:
        return ResponseWriter(
            self.outlet,
            clock=self.clock,
            limits=SendLimits(stall_s=60.0, rate=rate, window_s=100.0),
            unsent=lambda: self.pending,
            abort=self.abort,
        )

    def abort(self, why: str) -> None:
        self.aborted += 1
        self.why = why

    def test_writer_is_push_producer(self) -> None:
        """Twisted can drive the writer."""
        self.assertTrue(verifyObject(IPushProducer, self.writer))
        self.assertIs(self.outlet.producer, self.writer)

    def test_write_while_client_keeps_up_returns_at_once(self) -> None:
        """A client that reads fast costs no waiting and no timer."""
        self.successResultOf(Deferred.fromCoroutine(self.writer.write(b"abc")))
        self.assertEqual(self.outlet.data, b"abc")
        self.assertEqual(self.writer.written, 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_write_to_full_client_waits_until_it_drained(self) -> None:
        """The writer waits for a slow client, so bytes do not fill the memory."""
        self.outlet.full_at = 3
        d = Deferred.fromCoroutine(self.writer.write(b"abc"))
        self.assertNoResult(d)
        self.writer.resumeProducing()
        self.successResultOf(d)

    def test_write_after_client_left_raises_client_gone(self) -> None:
        """Nothing is written for a client that has left."""
        self.writer.stopProducing()
        self.failureResultOf(Deferred.fromCoroutine(self.writer.write(b"abc")), ClientGone)
        self.assertEqual(self.outlet.data, b"")

    def test_client_leaving_during_wait_raises_client_gone(self) -> None:
        """A writer that waits for a client gets an error when the client leaves."""
        self.outlet.full_at = 1
        d = Deferred.fromCoroutine(self.writer.write(b"abc"))
        self.writer.stopProducing()
        self.failureResultOf(d, ClientGone)

    def test_client_that_drains_nothing_is_aborted(self) -> None:
        """A client that takes no byte for the deadline is cut off."""
        self.outlet.full_at = 1
        self.pending = 1000
        d = Deferred.fromCoroutine(self.writer.write(b"abc"))
        self.clock.advance(59.9)
        self.assertEqual(self.aborted, 0)
        self.clock.advance(0.1)
        self.assertEqual((self.aborted, self.why), (1, "stalled"))
        self.failureResultOf(d, ClientGone)

    def slow(self, rate: float) -> Deferred[Any]:
        """Begin to write 64 KiB to a paused client, with this limit of the rate."""
        self.writer.close()
        self.writer = self.writer_with(rate=rate)
        self.addCleanup(self.writer.close)
        self.outlet.full_at, self.pending = 1, 64 * 1024
        return Deferred.fromCoroutine(self.writer.write(bytes(self.pending)))

    def test_client_that_trickles_is_aborted(self) -> None:
        """A client that reads only a byte at times is aborted."""
        d = self.slow(rate=10.0)
        for _ in range(9):
            self.clock.advance(10)
            self.pending -= 1
        self.assertEqual(self.aborted, 0)
        for _ in range(11):
            self.clock.advance(10)
            self.pending -= 1
        self.assertEqual((self.aborted, self.why), (1, "slow"))
        self.failureResultOf(d, ClientGone)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_client_just_fast_enough_is_served_to_the_end(self) -> None:
        """A client that is just fast enough is served to the end."""
        d = self.slow(rate=10.0)
        while self.pending > 110:
            self.clock.advance(10)
            self.pending -= 110
        self.assertNoResult(d)
        self.assertEqual(self.aborted, 0)

    def test_client_that_reads_in_bursts_is_served(self) -> None:
        """The average over the window counts, not a single measurement."""
        d = self.slow(rate=10.0)
        for _ in range(40):
            self.clock.pump([5] * 11)
            self.pending -= 700
        self.assertNoResult(d)
        self.assertEqual(self.aborted, 0)

    def test_slowness_over_many_short_waits_is_seen(self) -> None:
        """The window continues from one piece to the next."""
        self.writer.close()
        self.writer = self.writer_with(rate=10.0)
        self.outlet.full_at = 1
        for _ in range(9):
            d = Deferred.fromCoroutine(self.writer.write(b"x"))
            self.clock.advance(11)
            self.writer.resumeProducing()
            self.successResultOf(d)
        d = Deferred.fromCoroutine(self.writer.write(b"x"))
        self.clock.advance(11)
        self.writer.resumeProducing()
        self.failureResultOf(d, ClientGone)
        self.assertEqual((self.aborted, self.why), (1, "slow"))
        self.writer.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_time_of_the_source_is_not_held_against_the_client(self) -> None:
        """Time of waiting for the source does not count for the client."""
        self.slow(rate=10.0)
        self.pending = 0
        self.writer.resumeProducing()
        for _ in range(50):
            self.clock.advance(100)
            d = Deferred.fromCoroutine(self.writer.write(b"x"))
            self.clock.advance(0.05)
            self.writer.resumeProducing()
            self.successResultOf(d)
        self.assertEqual(self.aborted, 0)

    def test_client_that_drains_slowly_is_served_for_ever(self) -> None:
        """A client that continues to read is served, however long it takes."""
        self.outlet.full_at = 1
        self.pending = 1000
        d = Deferred.fromCoroutine(self.writer.write(b"abc"))
        for _ in range(100):
            self.clock.advance(59)
            self.pending -= 1
        self.assertNoResult(d)
        self.assertEqual(self.aborted, 0)
        self.clock.pump([60, 60])
        self.assertEqual(self.aborted, 1)
        self.failureResultOf(d, ClientGone)

    def test_deadline_counts_from_latest_wait(self) -> None:
        """The timer of an earlier wait does not shorten the deadline of a later one."""
        self.outlet.full_at = 1
        first = Deferred.fromCoroutine(self.writer.write(b"abc"))
        self.clock.advance(50)
        self.writer.resumeProducing()
        self.successResultOf(first)
        second = Deferred.fromCoroutine(self.writer.write(b"def"))
        self.clock.advance(50)
        self.assertEqual(self.aborted, 0)
        self.clock.advance(10)
        self.assertEqual(self.aborted, 1)
        self.failureResultOf(second, ClientGone)

    def test_idle_writer_is_not_aborted(self) -> None:
        """A client is not aborted while there are no bytes to send."""
        self.outlet.full_at = 1
        d = Deferred.fromCoroutine(self.writer.write(b"abc"))
        self.writer.resumeProducing()
        self.successResultOf(d)
        self.clock.advance(1000)
        self.assertEqual(self.aborted, 0)

    def test_close_leaves_no_timer_and_no_producer(self) -> None:
        """A finished response leaves nothing behind."""
        self.outlet.full_at = 1
        d = Deferred.fromCoroutine(self.writer.write(b"abc"))
        self.writer.resumeProducing()
        self.successResultOf(d)
        self.writer.close()
        self.writer.close()
        self.assertIsNone(self.outlet.producer)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_after_client_left_does_not_touch_outlet(self) -> None:
        """After the end of the connection the writer does not unregister from the outlet."""
        self.writer.stopProducing()
        self.writer.close()
        self.assertIs(self.outlet.producer, self.writer)

    def test_cancelled_write_can_be_closed(self) -> None:
        """Cancelling a response that waits for its client ends the wait."""
        self.outlet.full_at = 1
        d = Deferred.fromCoroutine(self.writer.write(b"abc"))
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.writer.resumeProducing()
        self.writer.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class UnsentTests(SynchronousTestCase):
    def test_unsent_counts_buffers_of_twisted_and_kernel(self) -> None:
        """Unread bytes count, in Twisted's buffers and in the kernel."""
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        ours.setblocking(False)
        connection = tcp.Connection(ours, Protocol())
        connection.connected = True
        connection.startWriting = lambda: None  # type: ignore[method-assign]
        connection.write(b"x" * 1000)
        self.assertEqual(unsent(connection), 1000)
        ours.send(b"y" * 500)
        full = unsent(connection)
        self.assertGreater(full, 1000)
        theirs.recv(500)
        self.assertLess(unsent(connection), full)

    def test_unsent_of_memory_transport_is_nothing(self) -> None:
        """For a transport without a socket the number is 0."""
        self.assertEqual(unsent(StringTransport()), 0)

    def test_unsent_of_closed_socket_is_what_twisted_holds(self) -> None:
        """For a closed socket only Twisted's buffers count, and there is no error."""
        ours, theirs = socket.socketpair()
        theirs.close()
        connection = tcp.Connection(ours, Protocol())
        ours.close()
        self.assertEqual(unsent(connection), 0)
