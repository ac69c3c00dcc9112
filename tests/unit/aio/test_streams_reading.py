"""BodyReader with transports in memory and a clock that only tests advance."""

from __future__ import annotations

from collections.abc import Coroutine
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web._newclient import HTTP11ClientProtocol, Request, ResponseFailed
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers

from ncps.aio.streams import RECEIVE_SIZE, BodyReader
from ncps.errors import Unavailable, Unconfirmed


def start(coro: Coroutine[Deferred[Any], Any, Any]) -> Deferred[Any]:
    return Deferred.fromCoroutine(coro)


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
        """A body that ends well is delivered completely."""
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
        """A body that arrived before the iteration is delivered."""
        self.reader.dataReceived(b"abc")
        self.lose(ResponseDone())
        self.assertEqual(self.successResultOf(start(self.everything())), b"abc")

    def test_iterating_again_after_end_ends_again(self) -> None:
        """A second iteration ends immediately."""
        self.lose(ResponseDone())
        self.assertEqual(self.successResultOf(start(self.everything())), b"")
        self.assertEqual(self.successResultOf(start(self.everything())), b"")

    def test_broken_body_delivers_its_bytes_then_raises(self) -> None:
        """A broken body delivers its bytes and then raises an error."""
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
        """A body without a length ends with Unconfirmed."""
        self.reader.dataReceived(b"abc")
        self.lose(PotentialDataLoss())
        self.assertEqual(self.successResultOf(start(anext(self.reader))), b"abc")
        self.failureResultOf(start(anext(self.reader)), Unconfirmed)

    def test_failure_names_its_cause(self) -> None:
        """The error names the cause, not the wrapper."""
        self.lose(ResponseFailed([Failure(ConnectionLost("reset by peer"))]))
        failure = self.failureResultOf(start(self.everything()), Unavailable)
        self.assertIn("the connection broke off (reset by peer)", str(failure.value))

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
        """If no byte comes for too long, the reader gives up and aborts."""
        d = start(self.everything())
        self.clock.advance(20)
        self.reader.dataReceived(b"abc")
        self.clock.advance(29)
        self.assertNoResult(d)
        self.clock.advance(1)
        failure = self.failureResultOf(d, Unavailable)
        self.assertTrue(failure.value.timed_out)
        self.assertTrue(self.transport.disconnected)

    def test_silence_without_a_waiting_reader_is_no_timeout(self) -> None:
        """While the reader does not wait, there is no timeout."""
        self.reader.dataReceived(b"abc")
        self.successResultOf(start(anext(self.reader)))
        self.clock.advance(1000)
        self.assertFalse(self.transport.disconnecting)

    def test_close_aborts_once_and_leaves_no_timer(self) -> None:
        """Closing a body aborts its connection once, and leaves no timer."""
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
        """If a body is closed before its connection, the connection is aborted."""
        reader = BodyReader(clock=self.clock, idle_after=30.0)
        reader.close()
        transport = StringTransport()
        reader.makeConnection(transport)
        self.assertTrue(transport.disconnected)

    def test_cancelled_wait_can_be_closed(self) -> None:
        """Cancelling the wait for a chunk leaves the reader usable for close."""
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
        """The bytes are the same in every order of arriving and reading."""
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
    """BodyReader with Twisted's own HTTP client, whose private proxy it bypasses."""

    def response(self, transport: StringTransport) -> Any:
        protocol = HTTP11ClientProtocol()
        protocol.makeConnection(transport)
        request = Request(b"GET", b"/", Headers({b"host": [b"h"]}), None)
        d = protocol.request(request)
        protocol.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        self.protocol = protocol
        return self.successResultOf(d)

    def test_close_aborts_real_client_connection(self) -> None:
        """Closing a body aborts the connection of the real client."""
        transport = StringTransport()
        reader = BodyReader(clock=Clock(), idle_after=30.0)
        self.response(transport).deliverBody(reader)
        self.assertEqual(self.successResultOf(start(anext(reader))), b"abc")
        reader.close()
        self.assertTrue(transport.disconnected)

    def test_bodies_are_taken_from_sockets_in_large_pieces(self) -> None:
        """The reader takes large chunks from sockets."""
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
