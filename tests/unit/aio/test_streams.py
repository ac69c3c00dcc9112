"""BodyReader and ResponseWriter on in-memory transports and a clock that only tests advance."""

from __future__ import annotations

import socket
from collections.abc import Coroutine
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import tcp
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web._newclient import HTTP11ClientProtocol, Request, ResponseFailed
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from zope.interface import implementer
from zope.interface.verify import verifyObject

from ncps.aio.streams import RECEIVE_SIZE, BodyReader, ClientGone, ResponseWriter, unsent
from ncps.errors import Unavailable, Unconfirmed


def start(coro: Coroutine[Deferred[Any], Any, Any]) -> Deferred[Any]:
    return Deferred.fromCoroutine(coro)


@implementer(IConsumer)
class Outlet:
    """A consumer that remembers what came and pauses its producer when told to."""

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
            stall_after=60.0,
            unsent=lambda: self.pending,
            abort=self.abort,
            rate=rate,
            window=100.0,
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
        self.successResultOf(start(self.writer.write(b"abc")))
        self.assertEqual(self.outlet.data, b"abc")
        self.assertEqual(self.writer.written, 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_write_to_full_client_waits_until_it_drained(self) -> None:
        """A slow client holds the writer up, so bytes do not pile up in memory."""
        self.outlet.full_at = 3
        d = start(self.writer.write(b"abc"))
        self.assertNoResult(d)
        self.writer.resumeProducing()
        self.successResultOf(d)

    def test_write_after_client_left_raises_client_gone(self) -> None:
        """Nothing is written for a client that has left."""
        self.writer.stopProducing()
        self.failureResultOf(start(self.writer.write(b"abc")), ClientGone)
        self.assertEqual(self.outlet.data, b"")

    def test_client_leaving_during_wait_raises_client_gone(self) -> None:
        """A writer that waits for a client learns at once that it left."""
        self.outlet.full_at = 1
        d = start(self.writer.write(b"abc"))
        self.writer.stopProducing()
        self.failureResultOf(d, ClientGone)

    def test_client_that_drains_nothing_is_aborted(self) -> None:
        """A client that takes no byte for the deadline is cut off."""
        self.outlet.full_at = 1
        self.pending = 1000
        d = start(self.writer.write(b"abc"))
        self.clock.advance(59.9)
        self.assertEqual(self.aborted, 0)
        self.clock.advance(0.1)
        self.assertEqual((self.aborted, self.why), (1, "stalled"))
        self.failureResultOf(d, ClientGone)

    def slow(self, rate: float) -> Deferred[Any]:
        """Begin to write 64 KiB to a client that has enough, on a writer with this bound."""
        self.writer.close()
        self.writer = self.writer_with(rate=rate)
        self.addCleanup(self.writer.close)
        self.outlet.full_at, self.pending = 1, 64 * 1024
        return start(self.writer.write(bytes(self.pending)))

    def test_client_that_trickles_is_aborted(self) -> None:
        """Taking a byte now and then does not hold a response open for ever."""
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
        """A slow reader of a large NAR is legal, however long it takes."""
        d = self.slow(rate=10.0)
        while self.pending > 110:
            self.clock.advance(10)
            self.pending -= 110
        self.assertNoResult(d)
        self.assertEqual(self.aborted, 0)

    def test_client_that_reads_in_bursts_is_served(self) -> None:
        """What counts is the average over the window, not every single look."""
        d = self.slow(rate=10.0)
        for _ in range(40):
            self.clock.pump([5] * 11)
            self.pending -= 700
        self.assertNoResult(d)
        self.assertEqual(self.aborted, 0)

    def test_slowness_over_many_short_waits_is_seen(self) -> None:
        """The window goes on from one piece to the next."""
        self.writer.close()
        self.writer = self.writer_with(rate=10.0)
        self.outlet.full_at = 1
        for _ in range(9):
            d = start(self.writer.write(b"x"))
            self.clock.advance(11)
            self.writer.resumeProducing()
            self.successResultOf(d)
        d = start(self.writer.write(b"x"))
        self.clock.advance(11)
        self.writer.resumeProducing()
        self.failureResultOf(d, ClientGone)
        self.assertEqual((self.aborted, self.why), (1, "slow"))
        self.writer.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_time_of_the_source_is_not_held_against_the_client(self) -> None:
        """A slow upstream does not make its clients look slow."""
        self.slow(rate=10.0)
        self.pending = 0
        self.writer.resumeProducing()
        for _ in range(50):
            self.clock.advance(100)
            d = start(self.writer.write(b"x"))
            self.clock.advance(0.05)
            self.writer.resumeProducing()
            self.successResultOf(d)
        self.assertEqual(self.aborted, 0)

    def test_client_that_drains_slowly_is_served_for_ever(self) -> None:
        """A slow client is legal as long as it takes some bytes."""
        self.outlet.full_at = 1
        self.pending = 1000
        d = start(self.writer.write(b"abc"))
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
        first = start(self.writer.write(b"abc"))
        self.clock.advance(50)
        self.writer.resumeProducing()
        self.successResultOf(first)
        second = start(self.writer.write(b"def"))
        self.clock.advance(50)
        self.assertEqual(self.aborted, 0)
        self.clock.advance(10)
        self.assertEqual(self.aborted, 1)
        self.failureResultOf(second, ClientGone)

    def test_idle_writer_is_not_aborted(self) -> None:
        """Waiting for bytes to send is not the client's fault."""
        self.outlet.full_at = 1
        d = start(self.writer.write(b"abc"))
        self.writer.resumeProducing()
        self.successResultOf(d)
        self.clock.advance(1000)
        self.assertEqual(self.aborted, 0)

    def test_close_leaves_no_timer_and_no_producer(self) -> None:
        """A finished response leaves nothing behind."""
        self.outlet.full_at = 1
        d = start(self.writer.write(b"abc"))
        self.writer.resumeProducing()
        self.successResultOf(d)
        self.writer.close()
        self.writer.close()
        self.assertIsNone(self.outlet.producer)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_after_client_left_does_not_touch_outlet(self) -> None:
        """A request whose connection is gone must not be asked to unregister anything."""
        self.writer.stopProducing()
        self.writer.close()
        self.assertIs(self.outlet.producer, self.writer)

    def test_cancelled_write_can_be_closed(self) -> None:
        """Cancelling a response that waits for its client ends the wait."""
        self.outlet.full_at = 1
        d = start(self.writer.write(b"abc"))
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.writer.resumeProducing()
        self.writer.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class BodyReaderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.reader = BodyReader(clock=self.clock, idle_after=30.0, high_water=10)
        self.transport = StringTransport()
        self.reader.makeConnection(self.transport)
        self.addCleanup(self.reader.close)

    def lose(self, error: Exception) -> None:
        self.reader.connectionLost(Failure(error))

    async def everything(self) -> bytes:
        return b"".join([chunk async for chunk in self.reader])

    def test_whole_body_is_delivered_in_order(self) -> None:
        """A body that ends well is delivered whole."""
        d = start(self.everything())
        for data in (b"ab", b"c", b"def"):
            self.reader.dataReceived(data)
        self.assertNoResult(d)
        self.lose(ResponseDone())
        self.assertEqual(self.successResultOf(d), b"abcdef")
        self.assertEqual(self.reader.received, 6)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertFalse(self.transport.disconnecting)

    def test_body_delivered_before_reading_is_not_lost(self) -> None:
        """A body that arrived before anybody asked is delivered all the same."""
        self.reader.dataReceived(b"abc")
        self.lose(ResponseDone())
        self.assertEqual(self.successResultOf(start(self.everything())), b"abc")

    def test_iterating_again_after_end_ends_again(self) -> None:
        """The end stays the end."""
        self.lose(ResponseDone())
        self.assertEqual(self.successResultOf(start(self.everything())), b"")
        self.assertEqual(self.successResultOf(start(self.everything())), b"")

    def test_broken_body_delivers_what_came_then_raises(self) -> None:
        """A broken body is never mistaken for a whole one, yet what came can be kept."""
        for error in (
            ResponseFailed([Failure(ConnectionLost())]),
            PotentialDataLoss(),
            ConnectionLost(),
        ):
            reader = BodyReader(clock=self.clock, idle_after=30.0)
            reader.makeConnection(StringTransport())
            reader.dataReceived(b"abc")
            reader.connectionLost(Failure(error))
            self.assertEqual(self.successResultOf(start(anext(reader))), b"abc")
            failure = self.failureResultOf(start(anext(reader)), Unavailable)
            self.assertFalse(failure.value.timed_out)
            self.failureResultOf(start(anext(reader)), Unavailable)

    def test_end_of_a_connection_alone_confirms_nothing(self) -> None:
        """A body whose length nobody told has ended, or broken off: its reader can tell."""
        self.reader.dataReceived(b"abc")
        self.lose(PotentialDataLoss())
        self.assertEqual(self.successResultOf(start(anext(self.reader))), b"abc")
        self.failureResultOf(start(anext(self.reader)), Unconfirmed)

    def test_failure_names_its_cause(self) -> None:
        """The log says why a body broke, not that some wrapper failed."""
        self.lose(ResponseFailed([Failure(ConnectionLost("reset by peer"))]))
        failure = self.failureResultOf(start(self.everything()), Unavailable)
        self.assertIn("ConnectionLost", str(failure.value))

    def test_unread_bytes_pause_transport_and_reading_resumes_it(self) -> None:
        """A slow reader slows the upstream instead of filling memory."""
        self.reader.dataReceived(b"12345")
        self.assertEqual(self.transport.producerState, "producing")
        self.reader.dataReceived(b"67890")
        self.assertEqual(self.transport.producerState, "paused")
        self.successResultOf(start(anext(self.reader)))
        self.assertEqual(self.transport.producerState, "producing")

    def test_paused_transport_resumes_only_at_half(self) -> None:
        """Pausing and resuming do not alternate with every chunk."""
        self.reader.dataReceived(b"1234")
        self.reader.dataReceived(b"567890")
        self.successResultOf(start(anext(self.reader)))
        self.assertEqual(self.transport.producerState, "paused")
        self.successResultOf(start(anext(self.reader)))
        self.assertEqual(self.transport.producerState, "producing")

    def test_silence_while_waiting_times_out_and_aborts(self) -> None:
        """An upstream that falls silent in the middle of a body is given up."""
        d = start(self.everything())
        self.clock.advance(20)
        self.reader.dataReceived(b"abc")
        self.clock.advance(29)
        self.assertNoResult(d)
        self.clock.advance(1)
        failure = self.failureResultOf(d, Unavailable)
        self.assertTrue(failure.value.timed_out)
        self.assertTrue(self.transport.disconnected)

    def test_silence_while_nobody_waits_is_no_timeout(self) -> None:
        """The reader's own slowness is not held against the upstream."""
        self.reader.dataReceived(b"abc")
        self.successResultOf(start(anext(self.reader)))
        self.clock.advance(1000)
        self.assertFalse(self.transport.disconnecting)

    def test_close_aborts_once_and_leaves_no_timer(self) -> None:
        """Giving up a body frees its connection at once."""
        d = start(anext(self.reader))
        self.reader.close()
        self.failureResultOf(d, Unavailable)
        self.assertTrue(self.transport.disconnected)
        self.reader.close()
        self.reader.dataReceived(b"late")
        self.lose(ResponseDone())
        self.failureResultOf(start(self.everything()), Unavailable)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_after_end_keeps_connection(self) -> None:
        """A connection whose body was read to the end can be used again."""
        self.lose(ResponseDone())
        self.reader.close()
        self.assertFalse(self.transport.disconnecting)

    def test_close_before_connection_aborts_it_when_it_comes(self) -> None:
        """A body given up before it began is given up when it begins."""
        reader = BodyReader(clock=self.clock, idle_after=30.0)
        reader.close()
        transport = StringTransport()
        reader.makeConnection(transport)
        self.assertTrue(transport.disconnected)

    def test_cancelled_wait_can_be_closed(self) -> None:
        """Cancelling whoever waits for a chunk leaves the reader usable for close."""
        d = start(anext(self.reader))
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.reader.dataReceived(b"abc")
        self.reader.close()
        self.assertTrue(self.transport.disconnected)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    @given(st.lists(st.binary(min_size=1, max_size=8)), st.randoms())
    def test_any_interleaving_delivers_same_bytes(
        self, chunks: list[bytes], random: Random
    ) -> None:
        """Whatever the order of arriving and reading, the bytes are the same."""
        reader = BodyReader(clock=self.clock, idle_after=30.0, high_water=10)
        reader.makeConnection(StringTransport())
        out: list[bytes] = []
        pending = list(chunks)
        reading: Deferred[bytes] | None = None
        while pending or len(out) < len(chunks):
            if pending and random.random() < 0.5:
                reader.dataReceived(pending.pop(0))
            elif reading is None:
                reading = start(anext(reader))
            elif pending:
                reader.dataReceived(pending.pop(0))
            if reading is not None and reading.called:
                out.append(self.successResultOf(reading))
                reading = None
        reader.connectionLost(Failure(ResponseDone()))
        if reading is not None:
            self.failureResultOf(reading, StopAsyncIteration)
        reader.close()
        self.assertEqual(out, chunks)


class RealClientTests(SynchronousTestCase):
    """BodyReader behind Twisted's own HTTP client, whose private proxy it has to look behind."""

    def response(self, transport: StringTransport) -> Any:
        protocol = HTTP11ClientProtocol()
        protocol.makeConnection(transport)
        request = Request(b"GET", b"/", Headers({b"host": [b"h"]}), None)
        d = protocol.request(request)
        protocol.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        self.protocol = protocol
        return self.successResultOf(d)

    def test_close_aborts_real_client_connection(self) -> None:
        """Giving up a body aborts the connection, not just the polite half of it."""
        transport = StringTransport()
        reader = BodyReader(clock=Clock(), idle_after=30.0)
        self.response(transport).deliverBody(reader)
        self.assertEqual(self.successResultOf(start(anext(reader))), b"abc")
        reader.close()
        self.assertTrue(transport.disconnected)

    def test_bodies_are_taken_from_sockets_in_large_pieces(self) -> None:
        """A chunk costs the same whatever its size, so chunks are large."""
        transport = StringTransport()
        transport.bufferSize = 65536  # type: ignore[attr-defined]  # as sockets have it
        self.response(transport).deliverBody(BodyReader(clock=Clock(), idle_after=20.0))
        self.assertEqual(transport.bufferSize, RECEIVE_SIZE)  # type: ignore[attr-defined]

    def test_body_of_real_client_ends(self) -> None:
        """A whole body from the client ends well."""
        reader = BodyReader(clock=Clock(), idle_after=30.0)
        self.response(StringTransport()).deliverBody(reader)
        self.protocol.dataReceived(b"def")

        async def everything() -> bytes:
            return b"".join([chunk async for chunk in reader])

        self.assertEqual(self.successResultOf(start(everything())), b"abcdef")


class UnsentTests(SynchronousTestCase):
    def test_unsent_counts_buffers_of_twisted_and_kernel(self) -> None:
        """What a peer has not read yet is seen, whether Twisted or the kernel holds it."""
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
        """A transport without a socket counts as drained."""
        self.assertEqual(unsent(StringTransport()), 0)

    def test_unsent_of_closed_socket_is_what_twisted_holds(self) -> None:
        """A socket that is closed already raises nothing."""
        ours, theirs = socket.socketpair()
        theirs.close()
        connection = tcp.Connection(ours, Protocol())
        ours.close()
        self.assertEqual(unsent(connection), 0)
