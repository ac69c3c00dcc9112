"""A real NcpsSite without sockets: clients are transports in memory, time is a Clock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ncps.auth.credentials import ClientCertificate
from ncps.cache.answers import Outcome
from ncps.nix.cacheinfo import CacheInfo
from ncps.observe.metrics import Metrics
from ncps.peering.tickets import TicketVerifier
from ncps.ports import SteadyFile
from ncps.settings.schema.server import ServerSettings
from ncps.web.access import CredentialGuard
from ncps.web.fast.hot import HotNarInfos
from ncps.web.fast.hot_nars import HotNars
from ncps.web.fast.ledger import Access
from ncps.web.grammar import RemovalAnswers, cluster_nars, fixed, narinfos, nars, old_nars
from ncps.web.guard import RouteGuard
from ncps.web.pages import info
from ncps.web.pages.hot_nar import HotNarPages
from ncps.web.pages.metrics import Scrape
from ncps.web.pages.nar import NarPages
from ncps.web.pages.narinfo import NarInfoPages
from ncps.web.pages.peers import PeerPages
from ncps.web.pages.upload import UploadPages
from ncps.web.routes import Route, Routes
from ncps.web.site import NcpsSite
from tests.fakes.cache import StubCache, served_narinfo
from tests.fakes.uploads import StubUploads

SECRET = "a secret of the cluster"
HERE = "http://10.0.0.7:8501"
NOW = 1_700_000_000.0
"""The secret of the cluster, the address of this process, and the time there."""
DIGEST = "0" * 32
PEER = IPv4Address("TCP", "192.0.2.1", 4711)


@frozen(kw_only=True)
class Response:
    """One response, as a client reads it.

    :param whole: whether it is complete by its own framing.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool


def parse_response(data: bytes, *, head_only: bool = False) -> tuple[Response, bytes]:
    """Read one response from the front of `data`; return it and the rest."""
    head, _, rest = data.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("ascii").split("\r\n")
    status = int(status_line.split(" ")[1])
    headers = {}
    for line in lines:
        name, _, value = line.partition(": ")
        assert name.lower() not in headers, f"{name} twice"
        headers[name.lower()] = value
    whole = True
    body = b""
    if head_only or status in {204, 304}:
        pass
    elif headers.get("transfer-encoding") == "chunked":
        whole = False
        while rest:
            length, _, rest = rest.partition(b"\r\n")
            size = int(length, 16)
            if size == 0:
                whole, rest = True, rest[2:]
                break
            body, rest = body + rest[:size], rest[size + 2 :]
    elif "content-length" in headers:
        size = int(headers["content-length"])
        body, rest = rest[:size], rest[size:]
        whole = len(body) == size
    else:
        body, rest = rest, b""
    return Response(status=status, headers=headers, body=body, whole=whole), rest


class Client(StringTransport):
    """The client's end of one connection.

    :ivar takes: bytes of a head and a file that it takes in one call; None for all.
    """

    SEND_LIMIT = 128 * 1024  # as Twisted's sockets have it
    bufferSize = 64 * 1024  # noqa: N815 - as Twisted spells it
    client_certificate: ClientCertificate | None = None
    """That it has shown in TLS."""

    def __init__(self, protocol: Any) -> None:
        super().__init__(hostAddress=PEER, peerAddress=PEER, lenient=True)
        self.protocol = protocol
        self.lost = False
        self.is_slow = False
        self.takes: int | None = None
        protocol.makeConnection(self)

    def send(self, data: bytes) -> None:
        """Let bytes arrive at the server."""
        self.protocol.dataReceived(data)

    def write(self, data: bytes) -> None:
        """Take bytes from the server; a slow client pauses after each write."""
        super().write(data)
        if self.is_slow and self.producer is not None:
            self.producer.pauseProducing()

    def send_with_file(self, head: bytes, file: SteadyFile, size: int) -> int | None:
        """Take a part of a head and a file, as `takes` says."""
        buffer = memoryview(bytearray(size))
        count = file.read_into(buffer, 0)
        if not count:
            return None
        data = (head + buffer[:count])[: self.takes]
        self.write(data)
        return len(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Take the bytes of a chunk, like any others."""
        self.write(b"".join(data))

    def leave(self) -> None:
        """Close the connection."""
        if not self.lost:
            self.lost = True
            if self.producer is not None:
                self.producer.stopProducing()
            self.protocol.connectionLost(Failure(ConnectionDone()))

    def abortConnection(self) -> None:
        super().abortConnection()
        self.leave()

    def ask(
        self,
        path: str | bytes,
        method: bytes = b"GET",
        version: bytes = b"HTTP/1.1",
        **headers: str,
    ) -> None:
        """Send a request; `if_range="x"` is the header If-Range."""
        if isinstance(path, str):
            path = path.encode("ascii")
        lines = [b"%b %b %b" % (method, path, version), b"Host: cache.example"]
        lines += [f"{name.replace('_', '-')}: {value}".encode() for name, value in headers.items()]
        self.send(b"\r\n".join(lines) + b"\r\n\r\n")

    def response(self, *, head_only: bool = False) -> Response:
        """Return the next response of the server."""
        response, rest = parse_response(self.value(), head_only=head_only)
        self.clear()
        self.io.write(rest)
        return response


class Server:
    """The web layer over a fake core."""

    def __init__(
        self,
        limits: ServerSettings | None = None,
        hot_bytes: int = 100_000,
        more: Sequence[Route] = (),
        credentials: CredentialGuard | None = None,
        guard: RouteGuard | None = None,
        removals: RemovalAnswers | None = None,
    ) -> None:
        self.clock = Clock()
        self.uploads = StubUploads()
        self.cache = StubCache()
        self.metrics = Metrics(["up.example"])
        self._logged: list[Access] = []
        self.hot, self.hot_nars = HotNarInfos(hot_bytes), HotNars(hot_bytes)
        self.site = NcpsSite(
            routes_for(
                self.cache,
                self.metrics,
                self.hot,
                hot_nars=self.hot_nars,
                more=more,
                uploads=self.uploads,
                guard=guard or credentials,
                removals=removals,
            ),
            clock=self.clock,
            metrics=self.metrics,
            limits=limits,
            hot=self.hot,
            access_log=self._logged.extend,
        )
        self.site.hot_nars = self.hot_nars
        if credentials is not None:
            self.site.read_by(credentials.reader)

    @property
    def logged(self) -> list[Access]:
        """Return the requests that the access log has got."""
        self.site.ledger.settle()
        return self._logged

    @property
    def timers(self) -> list[IDelayedCall]:
        """Return the running timers, except that of the ledger."""
        self.site.ledger.settle()
        return list(self.clock.getDelayedCalls())

    def connect(self) -> Client:
        """Open a connection."""
        protocol = self.site.buildProtocol(PEER)
        assert protocol is not None, "refused"
        return Client(protocol)

    def get(self, path: str | bytes, method: bytes = b"GET", **headers: str) -> Response:
        """Send GET on a new connection, and close it."""
        client = self.connect()
        client.ask(path, method, b"HTTP/1.1", **headers)
        response = client.response(head_only=method == b"HEAD")
        client.leave()
        return response

    def reached(self, limit: str) -> float | None:
        """Return the count of a limit."""
        return self.sample("ncps_limit_reached_total", limit=limit)

    def sample(self, name: str, **labels: str) -> float | None:
        """Read a metric."""
        return self.metrics.registry.get_sample_value(name, labels)


def routes_for(
    cache: StubCache,
    metrics: Metrics,
    hot: HotNarInfos,
    peers: PeerPages | None = None,
    *,
    hot_nars: HotNars | None = None,
    more: Sequence[Route] = (),
    uploads: StubUploads | None = None,
    guard: RouteGuard | None = None,
    removals: RemovalAnswers | None = None,
) -> Routes:
    """Make the routes as the service does."""
    own_nars = HotNarPages(cache, metrics, HotNars(0) if hot_nars is None else hot_nars)
    stored = uploads or StubUploads()
    taking = UploadPages(stored)
    return Routes(
        [
            narinfos(NarInfoPages(cache, metrics, hot), removals, taking),
            nars(own_nars, removals, NarPages(stored, metrics), taking),
            old_nars(own_nars),
            cluster_nars(peers or PeerPages(cache, TicketVerifier(SECRET, [HERE]), lambda: NOW)),
            fixed("/", info.index("cache.example", cache)),
            fixed("/nix-cache-info", info.cache_info(CacheInfo(want_mass_query=True, priority=10))),
            fixed("/pubkey", info.public_key(cache)),
            fixed("/healthz", info.heartbeat(), None),
            fixed("/readyz", info.ReadinessPage(cache), None),
            fixed("/metrics", Scrape(metrics.registry)),
            *more,
        ],
        guard=guard,
        via="ncps-0123",
    )


class ServerTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server(
            ServerSettings(
                idle_timeout_s=120.0,
                header_timeout_s=10.0,
                write_stall_timeout_s=60.0,
                max_connections=5,
            )
        )
        self.cache = self.server.cache
        self.clock = self.server.clock
        self.cache.narinfos[DIGEST] = served_narinfo(
            text=b"StorePath: x\n", outcome=Outcome.HIT, upstream="up.example"
        )

    def statuses(self, client: Client) -> list[int]:
        found = []
        while client.value():
            found.append(client.response().status)
        return found
