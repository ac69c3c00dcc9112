"""The web layer on real sockets: properties that only a kernel can show."""

from __future__ import annotations

import hashlib
import random
from typing import Any

from attrs import evolve
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
)
from twisted.internet.error import ConnectionDone
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from ncps.cache.answers import Outcome
from ncps.errors import Unavailable
from ncps.observe.metrics import Metrics
from ncps.settings.schema.server import ServerSettings
from ncps.web.fast.hot import HotNarInfos
from ncps.web.fast.ledger import Access
from ncps.web.fast.transport import adopt
from ncps.web.site import NcpsSite
from tests.fakes.cache import StubCache, served_narinfo
from tests.integration.web_client import CHUNK, KEY, Client, LargeNar
from tests.unit.web.wire import Response, parse_response, routes_for

reactor: Any = _reactor

DIGEST = "0" * 32
PATH = f"/{KEY.url}".encode()


class WebTests(TestCase):
    timeout = 30
    stall_s = 0.4
    """Seconds for which the kernel may report nothing of a slow client."""

    def setUp(self) -> None:
        self.cache = StubCache()
        self.metrics = Metrics()
        self._logged: list[Access] = []
        hot = HotNarInfos(100_000)
        self.clients: list[Client] = []
        self.site = NcpsSite(
            routes_for(self.cache, self.metrics, hot),
            clock=reactor,
            metrics=self.metrics,
            limits=ServerSettings(
                idle_timeout_s=5.0,
                header_timeout_s=5.0,
                write_stall_timeout_s=self.stall_s,
                max_connections=40,
            ),
            hot=hot,
            access_log=self._logged.extend,
        )
        self.site.linger_s = 0.2
        self.port = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self.prepare(self.port)

    def prepare(self, port: Any) -> None:
        """Make a listening port serve as that of the daemon."""
        adopt(port)

    def endpoint(self) -> Any:
        """Return the endpoint for clients."""
        return TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.getHost().port)

    @property
    def logged(self) -> list[Access]:
        """Return the entries of the access log so far."""
        self.site.ledger.settle()
        return self._logged

    async def tearDown(self) -> None:  # type: ignore[override]
        for client in self.clients:
            if not client.ended.called:
                client.transport.abortConnection()
        await self.port.stopListening()
        await self.site.drain(0.5)
        self.assertEqual(self.metrics.registry.get_sample_value("ncps_http_connections"), 0)
        self.assertEqual(self.metrics.registry.get_sample_value("http_server_active_requests"), 0)

    async def connect(self) -> Client:
        client: Client = await connectProtocol(self.endpoint(), Client())
        self.clients.append(client)
        return client

    async def pause(self, seconds: float) -> None:
        await deferLater(reactor, seconds, lambda: None)

    async def exchange(self, data: bytes) -> tuple[bytes, BaseException]:
        """Send `data` and read until the server closes."""
        client = await self.connect()
        client.transport.write(data)
        reason = await client.ended
        return bytes(client.data), reason

    async def test_thousand_headers_are_refused(self) -> None:
        """A thousand headers end in 431 and a closed connection."""
        data, reason = await self.exchange(b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 1000 + b"\r\n")
        self.assertTrue(data.startswith(b"HTTP/1.1 431 "))
        self.assertIsInstance(reason, ConnectionDone)

    async def test_half_request_and_silence_is_timed_out(self) -> None:
        """Half a request without a rest ends in 408 and a closed connection."""
        self.site.take(evolve(self.site.limits, header_timeout_s=0.3))
        data, reason = await self.exchange(b"GET /pubkey HTTP/1.1\r\nX: y")
        self.assertTrue(data.startswith(b"HTTP/1.1 408 "))
        self.assertIsInstance(reason, ConnectionDone)

    async def test_long_paths_and_nul_are_refused(self) -> None:
        """A path of 10 kB is 404; one of 20 kB or with a NUL is not even read."""
        for path, status in ((b"a" * 10_000, 404), (b"a" * 20_000, 431), (b"a\0b", 400)):
            data, _ = await self.exchange(b"GET /%b HTTP/1.1\r\nConnection: close\r\n\r\n" % path)
            self.assertEqual(int(data[9:12]), status)
        self.assertEqual(self.cache.asked, [])

    async def test_large_refused_upload_sees_its_answer(self) -> None:
        """A client that sends before it reads still learns the reason of the refusal."""
        self.site.linger_s = type(self.site).linger_s  # this machine may be busy
        client = await self.connect()
        client.ask(PATH, b"Content-Length: 50000000", method=b"PUT")
        for _ in range(40):
            client.transport.write(CHUNK)
        await client.ended
        self.assertEqual(client.response.status, 405)
        self.assertTrue(client.response.whole)

    async def test_slow_reader_holds_back_the_nar(self) -> None:
        """A client that pauses costs buffers, not the size of the NAR, and gets all of it later."""
        nar = self.cache.nars[KEY] = LargeNar(400)  # 100 MiB
        client = await self.connect()
        client.keep = False
        client.transport.pauseProducing()
        client.ask(PATH)
        await self.pause(0.2)
        delivered = nar.bodies[0].delivered
        self.assertLess(delivered, 16 * 1024 * 1024)
        await self.pause(0.1)
        self.assertEqual(nar.bodies[0].delivered, delivered)
        client.transport.resumeProducing()
        while client.received < 400 * len(CHUNK):
            await self.pause(0.02)
        self.assertEqual((nar.closed, nar.bodies[0].closed), (1, 1))

    async def test_reader_that_crawls_is_served_and_one_that_stands_is_cut(self) -> None:
        """Slow reading keeps a response alive; a client that stops reading is cut."""
        nar = self.cache.nars[KEY] = LargeNar(400)
        client = await self.connect()
        client.keep = False
        client.ask(PATH)
        for _ in range(round(30 * self.stall_s)):  # three times the deadline
            client.transport.pauseProducing()
            await self.pause(0.1)
            client.transport.resumeProducing()
            await self.pause(0)
        self.assertEqual(nar.closed, 0)
        client.transport.pauseProducing()
        await self.cut_off(nar)

    async def cut_off(self, nar: LargeNar) -> None:
        """Wait until the one request for `nar` is over without all of its bytes."""
        while not self.logged:  # the NAR is closed first; the connection ends some turns later
            await self.pause(0.01)
        self.assertEqual(nar.closed, 1)
        self.assertFalse(self.logged[-1].is_complete)

    async def test_reader_that_crawls_below_the_rate_is_cut(self) -> None:
        """A client slower than the least rate is cut."""
        self.site.limits = evolve(
            self.site.limits, min_send_rate_bytes=10**9, min_send_window_s=0.5
        )
        nar = self.cache.nars[KEY] = LargeNar(4000)
        client = await self.connect()
        client.keep = False
        client.ask(PATH)
        for _ in range(30):
            client.transport.pauseProducing()
            await self.pause(0.1)
            if client.ended.called or nar.closed:
                break
            client.transport.resumeProducing()
            await self.pause(0)
        client.transport.resumeProducing()
        await client.ended
        self.assertEqual(nar.closed, 1)
        self.assertEqual(self.reached("server-min-send-rate"), 1)

    def reached(self, limit: str) -> float | None:
        return self.metrics.registry.get_sample_value("ncps_limit_reached_total", {"limit": limit})

    async def test_requests_over_the_limit_are_told_to_come_back(self) -> None:
        """Beyond the limit clients get 503 with Retry-After, and connections stay open."""
        self.site.limits = evolve(self.site.limits, max_requests=3)
        gate = self.cache.gate = Deferred()
        self.cache.narinfos[DIGEST] = served_narinfo(text=b"x", outcome=Outcome.HIT)
        clients = [await self.connect() for _ in range(10)]
        for client in clients:
            client.ask(f"/{DIGEST}.narinfo".encode())
        await self.pause(0.2)
        told = [client for client in clients if client.data]
        self.assertEqual([client.response.status for client in told], [503] * 7)
        self.assertEqual({client.response.headers["retry-after"] for client in told}, {"5"})
        gate.callback(None)
        self.cache.gate = None
        await self.pause(0.1)
        self.assertEqual([client.response.status for client in clients].count(200), 3)
        told[0].data.clear()
        told[0].ask(f"/{DIGEST}.narinfo".encode())
        await self.pause(0.1)
        self.assertEqual(told[0].response.status, 200)

    async def test_connections_of_one_address_over_the_limit_are_closed(self) -> None:
        """Beyond the limit of one address only its new connections are closed."""
        self.site.limits = evolve(self.site.limits, max_connections_per_address=2)
        kept = [await self.connect() for _ in range(2)]
        refused = await self.connect()
        await refused.ended
        self.assertEqual(self.reached("server-max-connections-per-address"), 1)
        kept[0].ask(b"/pubkey")
        while b"\r\n\r\n" not in kept[0].data:
            await self.pause(0.01)
        self.assertEqual(kept[0].response.status, 200)

    async def test_client_leaving_closes_nar(self) -> None:
        """When a reader closes its connection, the NAR is closed immediately."""
        nar = self.cache.nars[KEY] = LargeNar(4000)
        client = await self.connect()
        client.keep = False
        client.ask(PATH)
        while not client.received:
            await self.pause(0.01)
        client.transport.abortConnection()
        await self.cut_off(nar)

    async def test_client_leaving_cancels_wait(self) -> None:
        """When a client leaves while the cache asks upstreams, its request ends."""
        cancelled: Deferred[Any] = Deferred()
        self.cache.gate = Deferred(lambda _: cancelled.callback(None))
        client = await self.connect()
        client.ask(PATH)
        await self.pause(0.05)
        client.transport.abortConnection()
        await cancelled

    async def test_error_in_the_middle_breaks_the_connection(self) -> None:
        """A NAR that cannot be completed is cut, with and without a length."""
        for size in (len(CHUNK) * 3, None):
            gate: Deferred[None] = Deferred()
            self.cache.add_nar(KEY, CHUNK, gate, Unavailable("upstream reset"), size=size)
            client = await self.connect()
            client.ask(PATH)
            while client.received < len(CHUNK):
                await self.pause(0.01)
            gate.callback(None)
            reason = await client.ended
            self.assertNotIsInstance(reason, ConnectionDone)
            self.assertEqual(client.response.status, 200)
            self.assertEqual(client.response.body, CHUNK)
            self.assertFalse(client.response.whole)

    async def test_pipelined_requests_are_answered_in_order(self) -> None:
        """Large and small answers keep their order on one connection."""
        self.cache.add_nar(KEY, CHUNK, CHUNK, size=2 * len(CHUNK))
        self.cache.narinfos[DIGEST] = served_narinfo(text=b"StorePath: x\n", outcome=Outcome.HIT)
        client = await self.connect()
        for _ in range(5):
            client.ask(PATH)
            client.ask(f"/{DIGEST}.narinfo".encode())
        client.ask(b"/healthz", b"Connection: close")
        await client.ended
        rest, bodies = bytes(client.data), []
        while rest:
            response, rest = parse_response(rest)
            bodies.append(response.body)
        self.assertEqual(bodies, [CHUNK * 2, b"StorePath: x\n"] * 5 + [b"."])

    async def test_random_ranges_equal_slices(self) -> None:
        """Any range of a large NAR is the right slice, over one kept connection."""
        data = random.Random(1).randbytes(700_000)
        pieces = [data[at : at + 99_991] for at in range(0, len(data), 99_991)]
        self.cache.add_nar(KEY, *pieces, size=len(data))
        client = await self.connect()
        chance = random.Random(2)
        for _ in range(25):
            start, stop = sorted(chance.sample(range(len(data) + 1), 2))
            client.data.clear()
            end = stop if chance.random() < 0.7 else len(data)
            header = b"bytes=%d-%b" % (start, b"" if end != stop else b"%d" % (stop - 1))
            client.ask(PATH, b"Range: " + header)
            while not client.data or not client.response.whole:
                await self.pause(0.001)
            self.assertEqual(client.response.status, 206)
            self.assertEqual(
                hashlib.sha256(client.response.body).digest(),
                hashlib.sha256(data[start:end]).digest(),
            )

    async def test_connections_over_the_limit_are_closed(self) -> None:
        """Beyond the limit of connections a new one is closed; the others continue."""
        self.site.take(evolve(self.site.limits, idle_timeout_s=60.0))  # none of them asks
        clients: list[Client] = []
        while len(clients) < 40:
            client = await self.connect()
            if not client.ended.called:  # else the handshake was late on a busy machine
                clients.append(client)
        while self.metrics.registry.get_sample_value("ncps_http_connections") != 40:
            await self.pause(0.01)
        late = await self.connect()
        await late.ended
        clients[0].ask(b"/healthz", b"Connection: close")
        await clients[0].ended
        self.assertEqual(clients[0].response.body, b".")

    async def heat(self) -> bytes:
        """Put an answer into memory; return its request."""
        self.cache.narinfos[DIGEST] = served_narinfo(
            text=b"x" * 1000, outcome=Outcome.HIT, may_repeat=lambda: True
        )
        request = b"GET /%b.narinfo HTTP/1.1\r\nHost: x\r\n\r\n" % DIGEST.encode()
        client = await self.connect()
        for _ in range(2):
            await self.answer_on(client, request)
        self.cache.asked.clear()
        return request

    async def answer_on(self, client: Client, request: bytes) -> Response:
        """Send a request and wait for its answer."""
        client.data.clear()
        client.transport.write(request)
        while not (client.data and client.response.whole):
            await self.pause(0)
        return client.response

    async def test_hot_answers_are_whole(self) -> None:
        """An answer from memory equals the page's, on TCP and UNIX connections."""
        request = await self.heat()
        socket = self.mktemp()
        port = reactor.listenUNIX(socket, self.site)
        adopt(port)
        over_unix = Client()
        await connectProtocol(UNIXClientEndpoint(reactor, socket), over_unix)
        self.clients.append(over_unix)
        for client in (await self.connect(), await self.connect(), over_unix):
            for _ in range(3):
                response = await self.answer_on(client, request)
                self.assertEqual((response.status, response.body), (200, b"x" * 1000))
        self.assertEqual(self.cache.asked, [])
        self.assertEqual({access.client for access in self.logged}, {"127.0.0.1", "unix"})
        await port.stopListening()

    async def test_unread_hot_answers_are_bounded(self) -> None:
        """ncps stops reading from a client that sends requests and reads no answers."""
        request = await self.heat()
        before = set(self.site.channels)
        client = await self.connect()
        await self.answer_on(client, request)
        (channel,) = self.site.channels - before
        client.data.clear()
        client.transport.pauseProducing()
        asked = 0
        while not channel.transport.producerPaused:
            client.transport.write(request)
            asked += 1
            await self.pause(0)
        held = len(channel.transport.dataBuffer) + channel.transport._tempDataLen
        self.assertLess(held, 200_000)
        client.transport.resumeProducing()
        while client.data.count(b"X-Cache: hit") < asked:
            await self.pause(0.01)
        self.assertFalse(channel.transport.producerPaused)
