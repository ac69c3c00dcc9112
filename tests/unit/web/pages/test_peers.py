"""Arriving NARs, for the other processes of this cache."""

from __future__ import annotations

from collections.abc import AsyncIterator

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import NotFound, Unavailable
from ncps.nix.narurl import NarKey
from ncps.peering.tickets import GOOD_FOR_S, SCHEME, Request, Ticket, TicketVerifier, stated_time
from ncps.ports import Peers, Segment, UpstreamBody
from ncps.web.pages.peers import PeerPages
from tests.fakes.cache import Piece, StubArrivingNar
from tests.unit.web.wire import HERE, NOW, SECRET, Response, Server, routes_for

KEY = NarKey("0" * 52, "xz")
PATH = f"/cluster/nar/{KEY.file_name}"


def ticket(
    path: str = PATH,
    method: str = "GET",
    *,
    offset: str = "0",
    worker: str = "",
    secret: str = SECRET,
    audience: str = HERE,
    time: float = NOW,
) -> Ticket:
    request = Request(method=method, path=path, offset=offset, worker=worker)
    return Ticket.make(secret, audience, time, request)


def headers(
    path: str = PATH,
    method: str = "GET",
    *,
    offset: str | None = None,
    worker: str = "",
    secret: str = SECRET,
) -> dict[str, str]:
    """Return the headers of a peer's request."""
    shown = ticket(path, method, offset=offset or "0", worker=worker, secret=secret)
    found = {"Authorization": shown.header()}
    if offset is not None:
        found["X_Ncps_Offset"] = offset
    if worker:
        found["X_Ncps_Worker"] = worker
    return found


class PeerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server()
        self.cache = self.server.cache

    def arrive(self, *pieces: Piece, size: int | None = None) -> StubArrivingNar:
        nar = StubArrivingNar(KEY, pieces, size=size)
        self.cache.nars[KEY] = nar
        return nar

    def test_bytes_from_an_offset_on(self) -> None:
        """A peer gets the rest of the file, and its name."""
        nar = self.arrive(b"0123", b"456789", size=10)
        whole = self.server.get(PATH, b"GET", **headers())
        self.assertEqual((200, b"0123456789"), (whole.status, whole.body))
        self.assertEqual(
            ("a file", "0"), (whole.headers["x-ncps-file"], whole.headers["x-ncps-offset"])
        )
        self.assertEqual("10", whole.headers["content-length"])
        rest = self.server.get(PATH, b"GET", **headers(offset="3"))
        self.assertEqual((b"3456789", "7"), (rest.body, rest.headers["content-length"]))
        self.assertEqual("no-store", rest.headers["cache-control"])
        self.assertEqual(2, nar.closed)

    def test_size_need_not_be_known(self) -> None:
        """Without a known size, the rest is sent, and its end is visible."""
        self.arrive(b"0123", b"456789")
        rest = self.server.get(PATH, b"GET", **headers(offset="8"))
        self.assertEqual((200, b"89", True), (rest.status, rest.body, rest.whole))

    def test_head_comes_at_once(self) -> None:
        """The head is sent before the next byte comes."""
        for size in (None, 4):
            gate: Deferred[None] = Deferred()
            self.arrive(gate, b"0123", size=size)
            client = self.server.connect()
            client.ask(PATH, b"GET", b"HTTP/1.1", **headers())
            self.assertIn(b"X-Ncps-File: a file\r\n", client.value())
            self.assertFalse(client.response().whole)
            client.leave()

    def test_failure_is_visible(self) -> None:
        """A failed download does not end normally."""
        for size in (None, 10):
            self.arrive(b"0123", Unavailable("cut"), size=size)
            client = self.server.connect()
            client.ask(PATH, b"GET", b"HTTP/1.1", **headers())
            self.assertFalse(client.response().whole)
            self.assertTrue(client.lost)

    def test_head_names_the_file(self) -> None:
        """HEAD names the arriving file without reading bytes."""
        nar = self.arrive(b"0123", size=4)
        head = self.server.get(PATH, b"HEAD", **headers(method="HEAD"))
        self.assertEqual((200, "a file"), (head.status, head.headers["x-ncps-file"]))
        self.assertEqual(([], 1), (nar.bodies, nar.closed))

    def test_without_a_ticket_nothing_is_told(self) -> None:
        """Without a valid ticket, a sender learns nothing about NARs."""
        self.arrive(b"0123", size=4)
        for given in (
            "",
            f"Bearer {SECRET}",
            SECRET,
            ticket(secret="another").header(),
            ticket(method="HEAD").header(),
            ticket(offset="1").header(),
            ticket(worker="unix:/run/2").header(),
            ticket(path="/cluster/nar/x").header(),
            ticket(secret="another", time=NOW - 3600).header(),
            ticket(secret="another", audience="http://10.0.0.8:8501").header(),
        ):
            answer = self.server.get(PATH, Authorization=given)
            self.assertEqual((401, SCHEME), (answer.status, answer.headers["www-authenticate"]))
            self.assertNotIn("x-ncps-file", answer.headers)
            self.assertNotIn("x-ncps-clock", answer.headers)
        self.assertEqual([], self.cache.asked)

    def test_ticket_for_another_process(self) -> None:
        """It is refused with the reason."""
        self.arrive(b"0123", size=4)
        for audience in ("http://10.0.0.8:8501", "unix:/run/2", f"{HERE}/", "http://10.0.0.7"):
            for time in (NOW, NOW - 3600):
                given = ticket(audience=audience, time=time).header()
                answer = self.server.get(PATH, Authorization=given)
                self.assertEqual(421, answer.status)
                self.assertNotIn("x-ncps-file", answer.headers)
                self.assertNotIn("x-ncps-clock", answer.headers)
        self.assertEqual([], self.cache.asked)

    def test_ticket_of_another_time(self) -> None:
        """It is refused; a sender with the secret gets the time of this process."""
        self.arrive(b"0123", size=4)
        for apart in (-3600.0, -GOOD_FOR_S - 1.0, GOOD_FOR_S + 1.0, 10.0**8):
            given = ticket(time=NOW + apart)
            answer = self.server.get(PATH, Authorization=given.header())
            self.assertEqual(401, answer.status)
            self.assertEqual([], self.cache.asked)
            clock = answer.headers["x-ncps-clock"]
            self.assertEqual(int(NOW), stated_time(SECRET, given, clock))
        head = ticket(method="HEAD", time=NOW - 3600).header()
        self.assertIn("x-ncps-clock", self.server.get(PATH, b"HEAD", Authorization=head).headers)

    def test_a_nar_that_is_not_arriving_is_404(self) -> None:
        """Nothing is fetched for a peer; stored NARs are in the store."""
        self.cache.add_nar(KEY, b"0123", size=4)
        self.assertEqual(404, self.server.get(PATH, b"GET", **headers()).status)

    def test_nonsense_is_refused(self) -> None:
        """Wrong offsets are 400, those beyond the file 416, other verbs 405."""
        self.arrive(b"0123", size=4)
        for offset in ("-1", "x", "1" * 19, ""):
            answer = self.server.get(PATH, b"GET", **headers(offset=offset))
            self.assertEqual(400 if offset else 200, answer.status, offset)
        beyond = self.server.get(PATH, b"GET", **headers(offset="5"))
        self.assertEqual(416, beyond.status)
        self.assertEqual(405, self.server.get(PATH, b"PUT").status)
        self.assertEqual(404, self.server.get("/cluster/nar/x").status)

    def test_client_that_leaves_stops_its_reader(self) -> None:
        """A peer that has gone holds nothing."""
        gate: Deferred[None] = Deferred()
        nar = self.arrive(b"0123", gate, b"4567", size=8)
        client = self.server.connect()
        client.ask(PATH, b"GET", b"HTTP/1.1", **headers())
        client.leave()
        self.assertEqual((1, 1), (nar.bodies[0].closed, nar.closed))


class _Sibling(Peers):
    """Another worker, with one arriving NAR."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.body: _Body | None = None

    async def find_nar(self, address: str, key: NarKey) -> str:
        return f"file of {address}"

    async def open_nar(self, address: str, key: NarKey, *, offset: int = 0) -> UpstreamBody:
        if key != KEY:
            raise NotFound("not there")
        self.asked.append((address, offset))
        self.body = _Body(offset)
        return self.body


class _Body(UpstreamBody):
    """The body that the sibling sends."""

    def __init__(self, start: int) -> None:
        self._start = start
        self.closed = 0

    @property
    def start(self) -> int:
        return self._start

    @property
    def total(self) -> int:
        return 10

    @property
    def size(self) -> int:
        return 10 - self._start

    def segment(self) -> Segment | None:
        return None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"0123456789"[self.start :]

    def close(self) -> None:
        self.closed += 1


class SiblingTests(SynchronousTestCase):
    """The kernel gives a peer's connection to any of several workers."""

    def setUp(self) -> None:
        self.server = Server()
        self.sibling = _Sibling()
        pages = PeerPages(
            self.server.cache,
            TicketVerifier(SECRET, [HERE]),
            lambda: NOW,
            siblings=["unix:/run/2"],
            peers=self.sibling,
        )
        self.server.site.resource = routes_for(
            self.server.cache, self.server.metrics, self.server.hot, pages
        )

    def get(self, path: str = PATH, method: str = "GET", **parts: str) -> Response:
        parts.setdefault("worker", "unix:/run/2")
        given = headers(path, method, **parts)
        return self.server.get(path, method.encode(), **given)

    def test_a_request_for_a_sibling_is_passed_on(self) -> None:
        """Its bytes come through this worker, from the offset on."""
        answer = self.get(offset="3")
        self.assertEqual((200, b"3456789", True), (answer.status, answer.body, answer.whole))
        self.assertEqual("3", answer.headers["x-ncps-offset"])
        self.assertEqual([("unix:/run/2", 3)], self.sibling.asked)
        assert self.sibling.body is not None
        self.assertEqual(1, self.sibling.body.closed)

    def test_its_file_is_named(self) -> None:
        """HEAD has the file of the sibling."""
        head = self.get(method="HEAD")
        self.assertEqual("file of unix:/run/2", head.headers["x-ncps-file"])

    def test_its_absence_is_ours(self) -> None:
        """A NAR that is not arriving at the sibling is 404."""
        self.assertEqual(404, self.get(f"/cluster/nar/{'1' * 52}.nar").status)

    def test_no_other_process_is_asked(self) -> None:
        """Only addresses of siblings are asked, and only with a valid ticket."""
        for address in ("unix:/run/1", "unix:/etc/passwd", "http://10.0.0.7"):
            self.assertEqual(404, self.get(worker=address).status)
        given = {**headers(), "X_Ncps_Worker": "\xff"}
        self.assertEqual(401, self.server.get(PATH, b"GET", **given).status)
        self.assertEqual(401, self.get(secret="another").status)
        self.assertEqual([], self.sibling.asked)
