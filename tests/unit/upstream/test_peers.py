"""PeerClients: other processes of the cache, on connections in memory."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Corrupt, NotFound, Unavailable
from ncps.nix.narurl import NarKey
from ncps.ports import UpstreamBody
from ncps.upstream import peers
from ncps.upstream.peers import PeerClients
from tests.fakes.wire import Line, Wire

KEY = NarKey("0" * 52, "xz")
THERE = "http://10.0.0.7:8501"


class PeerClientsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.wire = Wire()
        self.took: list[int] = []
        self.peers = PeerClients(self.wire, secret="the secret", took=self.took.append)

    def open(self, address: str = THERE, offset: int = 0) -> tuple[Line, Deferred[UpstreamBody]]:
        opening = Deferred.fromCoroutine(self.peers.open_nar(address, KEY, offset=offset))
        return self.wire.accept(), opening

    def read(self, body: UpstreamBody) -> Deferred[bytes]:
        async def read() -> bytes:
            return b"".join([chunk async for chunk in body])

        return Deferred.fromCoroutine(read())

    def test_rest_of_a_file(self) -> None:
        """The secret and the offset are shown; the body says where it begins and ends."""
        line, opening = self.open(offset=7)
        sent = line.sent
        self.assertTrue(sent.startswith(f"GET /cluster/nar/{KEY.file_name} HTTP".encode()))
        self.assertIn(b"Authorization: Bearer the secret\r\n", sent)
        self.assertIn(b"X-Ncps-Offset: 7\r\n", sent.replace(b"X-NCPS", b"X-Ncps"))
        line.answer(body=b"abc", x_ncps_offset="7", x_ncps_file="f")
        body = self.successResultOf(opening)
        self.assertEqual((7, 10, 3), (body.start, body.total, body.size))
        self.assertIsNone(body.segment())
        self.assertEqual(b"abc", self.successResultOf(self.read(body)))
        self.assertEqual([3], self.took)
        body.close()

    def test_size_may_be_unknown(self) -> None:
        """A file of unknown size comes in chunks."""
        line, opening = self.open()
        line.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Ncps-Offset: 0\r\n\r\n")
        body = self.successResultOf(opening)
        self.assertEqual((None, None), (body.total, body.size))
        reading = self.read(body)
        line.say(b"3\r\nabc\r\n0\r\n\r\n")
        self.assertEqual(b"abc", self.successResultOf(reading))

    def test_cut_is_an_error(self) -> None:
        """A peer that dies in the middle has not sent all."""
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

    def test_what_a_peer_may_say(self) -> None:
        """404 is an absence there, everything else means that one cannot tell."""
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

    def test_other_part_is_not_believed(self) -> None:
        """A body that begins elsewhere than asked is none."""
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
        sent = line.sent.lower()
        self.assertTrue(sent.startswith(f"get /cluster/nar/{KEY.file_name} http".encode()))
        self.assertIn(b"x-ncps-worker: unix:/run/there/worker-2.sock\r\n", sent)
        self.assertIn(b"host: 10.0.0.7:8501\r\n", sent)
        line.answer(body=b"abc", x_ncps_offset="0")
        self.successResultOf(opening).close()

    def test_worker_of_this_machine(self) -> None:
        """A sibling is asked at its own socket, whatever else its address says."""
        sibling = "unix:/run/here/worker-2.sock"
        self.peers = PeerClients(self.wire, secret="the secret", siblings=[sibling])
        for address in (sibling, f"{THERE}#{sibling}"):
            opening = Deferred.fromCoroutine(self.peers.open_nar(address, KEY))
            opening.addErrback(lambda _: None)
            opening.cancel()
        sockets = [client[0] for client in self.wire.unixClients]
        self.assertEqual(["/run/here/worker-2.sock"] * 2, sockets)

    def test_silence_ends(self) -> None:
        """A peer that accepts and says nothing is given up."""
        line, opening = self.open()
        self.assertTrue(line.sent)
        self.wire.advance(peers.TIMEOUTS.connect_s + peers.TIMEOUTS.first_byte_s)
        self.assertTrue(self.failureResultOf(opening, Unavailable).value.timed_out)

    def test_addresses_are_bounded(self) -> None:
        """However many peers there are, the connections of few are kept."""
        for number in range(peers.MAX_CLIENTS + 5):
            line, opening = self.open(f"http://10.0.0.7:{number + 1}")
            line.answer(body=b"", x_ncps_offset="0")
            self.successResultOf(opening).close()
        self.assertEqual(peers.MAX_CLIENTS, len(self.peers._clients))
        closing = Deferred.fromCoroutine(self.peers.close())
        self.wire.advance(1)
        self.successResultOf(closing)
        self.assertEqual(0, len(self.peers._clients))
