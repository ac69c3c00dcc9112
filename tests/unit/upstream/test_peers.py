"""PeerClients: other processes of the cache, on connections in memory."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Corrupt, NotFound, Unavailable
from ncps.nix.narurl import NarKey
from ncps.observe.metrics import Metrics
from ncps.peering.tickets import Request, TicketVerdict, TicketVerifier
from ncps.ports import UpstreamBody
from ncps.upstream import peers
from ncps.upstream.peers import PeerClients
from tests.fakes.metrics import counted
from tests.fakes.wire import Line, Wire

KEY = NarKey("0" * 52, "xz")
THERE = "http://10.0.0.7:8501"
SECRET = "the secret"
AHEAD_S = 86_400.0
"""Seconds that the clock of a peer is ahead."""


class PeerClientsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.wire = Wire()
        self.metrics = Metrics()
        self.peers = PeerClients(self.wire, secret=SECRET, metrics=self.metrics)

    def open(self, address: str = THERE, offset: int = 0) -> tuple[Line, Deferred[UpstreamBody]]:
        opening = Deferred.fromCoroutine(self.peers.open_nar(address, KEY, offset=offset))
        return self.wire.accept() if self.wire.pending else self.wire.lines[-1], opening

    def verdict(
        self, sent: bytes, audience: str, *, now: float = 0.0, **parts: str
    ) -> TicketVerdict:
        """Return the verdict of the process at an address on a request's ticket."""
        request = Request(
            **{"method": "GET", "path": f"/cluster/nar/{KEY.file_name}", "offset": "0", **parts}
        )
        return TicketVerifier(SECRET, [audience]).look(_field(sent, "authorization"), request, now)

    def correct(self, line: Line, *, secret: str = SECRET, now: float = AHEAD_S) -> None:
        """Answer that the clock there differs."""
        clock = TicketVerifier(secret, []).clock(_field(line.sent, "authorization"), now)
        line.answer("401 Unauthorized", x_ncps_clock=clock)

    def read(self, body: UpstreamBody) -> Deferred[bytes]:
        async def read() -> bytes:
            return b"".join([chunk async for chunk in body])

        return Deferred.fromCoroutine(read())

    def test_rest_of_a_file(self) -> None:
        """A ticket and the offset are sent; the body says where it begins and ends."""
        line, opening = self.open(offset=7)
        sent = line.sent
        self.assertTrue(sent.startswith(f"GET /cluster/nar/{KEY.file_name} HTTP".encode()))
        self.assertIs(TicketVerdict.GOOD, self.verdict(sent, THERE, offset="7"))
        self.assertNotIn(SECRET.encode(), sent)
        self.assertIn(b"X-Ncps-Offset: 7\r\n", sent.replace(b"X-NCPS", b"X-Ncps"))
        line.answer(body=b"abc", x_ncps_offset="7", x_ncps_file="f")
        body = self.successResultOf(opening)
        self.assertEqual((7, 10, 3), (body.start, body.total, body.size))
        self.assertIsNone(body.segment())
        self.assertEqual(b"abc", self.successResultOf(self.read(body)))
        self.assertEqual(3, counted(self.metrics.bytes_relayed))
        body.close()

    def test_size_may_be_unknown(self) -> None:
        """A file of unknown size arrives in chunks."""
        line, opening = self.open()
        line.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Ncps-Offset: 0\r\n\r\n")
        body = self.successResultOf(opening)
        self.assertEqual((None, None), (body.total, body.size))
        reading = self.read(body)
        line.say(b"3\r\nabc\r\n0\r\n\r\n")
        self.assertEqual(b"abc", self.successResultOf(reading))

    def test_cut_is_an_error(self) -> None:
        """A peer that dies in the middle has not sent everything."""
        line, opening = self.open()
        line.say(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Ncps-Offset: 0\r\n\r\n3\r\nabc\r\n"
        )
        body = self.successResultOf(opening)
        reading = self.read(body)
        line.cut()
        self.failureResultOf(reading, Unavailable)
        body.close()

    def test_which_file_it_is(self) -> None:
        """A HEAD says which file arrives there."""
        finding = Deferred.fromCoroutine(self.peers.find_nar(THERE, KEY))
        line = self.wire.accept()
        self.assertTrue(line.sent.startswith(b"HEAD "))
        line.answer(x_ncps_file="sha256:abc")
        self.assertEqual("sha256:abc", self.successResultOf(finding))

    def test_possible_answers_of_a_peer(self) -> None:
        """404 is an absence there; each other status means that the peer could not tell."""
        for status, kind in (
            ("404 Not Found", NotFound),
            ("401 Unauthorized", Unavailable),
            ("503 Later", Unavailable),
            ("302 Found", Unavailable),
        ):
            self.setUp()
            line, opening = self.open()
            line.answer(status)
            self.failureResultOf(opening, kind)

    def test_another_secret(self) -> None:
        """It has an error of its own, and the peer is asked once."""
        for clock in ("", "soon", "time=86400, signature=" + "0" * 64):
            line, opening = self.open()
            line.answer("401 Unauthorized", x_ncps_clock=clock)
            error = self.failureResultOf(opening, Unavailable).value
            self.assertIn("another cluster-secret", str(error))
            self.assertEqual(1, line.sent.count(b"HTTP/1.1\r\n"))

    def test_another_process(self) -> None:
        """The answering process is of this cache, but another one was asked for."""
        line, opening = self.open()
        line.answer("421 Misdirected Request")
        error = self.failureResultOf(opening, Unavailable).value
        self.assertIn(THERE, str(error))
        self.assertIn("cluster-advertise-url", str(error))

    def test_redirects_are_not_followed(self) -> None:
        """A redirect of a peer is not followed, and nothing of ours is sent there."""
        for status in ("301 Moved", "302 Found", "307 Temporary Redirect", "308 Moved"):
            for location in ("http://10.0.0.99/x", "/cluster/nar/x", f"{THERE}/x"):
                line, opening = self.open()
                line.answer(status, location=location)
                error = self.failureResultOf(opening, Unavailable).value
                self.assertIn(status[:3], str(error))
                self.assertEqual(1, line.sent.count(b"HTTP/1.1\r\n"))
        self.assertEqual(1, self.wire.attempts)

    def test_ticket_is_for_one_address(self) -> None:
        """A ticket for one peer is invalid at another."""
        line, opening = self.open()
        sent = line.sent
        self.assertIs(TicketVerdict.GOOD, self.verdict(sent, THERE))
        self.assertIs(TicketVerdict.MISDIRECTED, self.verdict(sent, "http://10.0.0.8:8501"))
        self.assertIs(TicketVerdict.MISDIRECTED, self.verdict(sent, "unix:/run/x.sock"))
        opening.addErrback(lambda _: None)
        opening.cancel()

    def test_clock_of_a_peer(self) -> None:
        """A peer with another clock is asked again by that clock, which is used from then on."""
        line, opening = self.open()
        self.correct(line)
        self.assertIs(TicketVerdict.GOOD, self.verdict(line.sent, THERE, now=AHEAD_S))
        line.answer(body=b"", x_ncps_offset="0")
        self.successResultOf(opening).close()
        self.wire.advance(100)
        line, opening = self.open()
        self.assertIs(TicketVerdict.GOOD, self.verdict(line.sent, THERE, now=AHEAD_S + 100))
        line.answer(body=b"", x_ncps_offset="0")
        self.successResultOf(opening).close()
        other = "http://10.0.0.8:8501"
        elsewhere, opening = self.open(other)
        self.assertIs(TicketVerdict.GOOD, self.verdict(elsewhere.sent, other, now=100))
        opening.addErrback(lambda _: None)
        opening.cancel()

    def test_clock_of_an_unknown_peer(self) -> None:
        """A process without the secret gets no ticket for another time."""
        line, opening = self.open()
        self.correct(line, secret="another secret")
        self.failureResultOf(opening, Unavailable)
        self.assertEqual(b"", line.sent)

    def test_clocks_without_end(self) -> None:
        """If each answer has another time, the client gives up."""
        line, opening = self.open()
        for turn in range(3):
            self.assertNoResult(opening)
            self.correct(line, now=AHEAD_S * (turn + 1))
        self.assertEqual(b"", line.sent)
        self.assertIn("clocks", str(self.failureResultOf(opening, Unavailable).value))

    def test_other_part_is_not_believed(self) -> None:
        """A body that begins at another offset than asked is refused."""
        line, opening = self.open(offset=7)
        line.answer(body=b"abc", x_ncps_offset="0")
        self.failureResultOf(opening, Corrupt)

    def test_socket_of_this_machine(self) -> None:
        """An address may be a socket in the file system."""
        opening = Deferred.fromCoroutine(self.peers.open_nar("unix:/run/x.sock", KEY))
        self.assertEqual("/run/x.sock", self.wire.unixClients[0][0])
        opening.addErrback(lambda _: None)
        opening.cancel()

    def test_worker_of_another_machine(self) -> None:
        """One of several workers is asked for by name, at the address of all."""
        line, opening = self.open(f"{THERE}#unix:/run/there/worker-2.sock")
        sent = line.sent
        self.assertTrue(sent.startswith(f"GET /cluster/nar/{KEY.file_name} HTTP".encode()))
        worker = "unix:/run/there/worker-2.sock"
        self.assertEqual(worker, _field(sent, "x-ncps-worker"))
        self.assertIs(TicketVerdict.GOOD, self.verdict(sent, THERE, worker=worker))
        self.assertEqual("10.0.0.7:8501", _field(sent, "host"))
        line.answer(body=b"abc", x_ncps_offset="0")
        self.successResultOf(opening).close()

    def test_worker_of_this_machine(self) -> None:
        """A sibling is asked at its own socket, also if its address has a URL."""
        sibling = "unix:/run/here/worker-2.sock"
        self.peers = PeerClients(self.wire, secret=SECRET, metrics=self.metrics, siblings=[sibling])
        for address in (sibling, f"{THERE}#{sibling}"):
            opening = Deferred.fromCoroutine(self.peers.open_nar(address, KEY))
            opening.addErrback(lambda _: None)
            opening.cancel()
        sockets = [client[0] for client in self.wire.unixClients]
        self.assertEqual(["/run/here/worker-2.sock"] * 2, sockets)

    def test_silence_ends(self) -> None:
        """A peer that accepts and sends nothing is given up."""
        line, opening = self.open()
        self.assertTrue(line.sent)
        self.wire.advance(peers.TIMEOUTS.connect_s + peers.TIMEOUTS.first_byte_s)
        self.assertTrue(self.failureResultOf(opening, Unavailable).value.timed_out)

    def test_addresses_are_bounded(self) -> None:
        """Of any number of peers, only the connections to a few are kept."""
        for number in range(peers.MAX_CLIENTS + 5):
            line, opening = self.open(f"http://10.0.0.7:{number + 1}")
            line.answer(body=b"", x_ncps_offset="0")
            self.successResultOf(opening).close()
        self.assertEqual(peers.MAX_CLIENTS, len(self.peers._peers))
        closing = Deferred.fromCoroutine(self.peers.close())
        self.wire.advance(1)
        self.successResultOf(closing)
        self.assertEqual(0, len(self.peers._peers))


def _field(sent: bytes, name: str) -> str:
    """Return the value of a request's header."""
    for line in sent.decode().split("\r\n"):
        field, _, value = line.partition(": ")
        if field.lower() == name:
            return value
    raise AssertionError(f"no {name} in {sent!r}")
