"""PeerClients: the other processes of this cache over HTTP, as the `Peers` port.

An address is an http URL, or `unix:/path` of a socket on this machine, or both, joined by `#`. Both
mean one of several workers: its siblings reach it at its socket, and other daemons through any
worker that answers at the URL. `ncps.web.pages.peers` describes requests and answers.

An address comes from a lease, and a foreign program may listen there now. So the secret is never
sent. Instead, each request has a ticket that is valid only at this address, and redirects are not
followed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from typing import Any, Final

from attrs import define
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from ncps.aio.body import PassedBody
from ncps.aio.clocks import wall_of
from ncps.aio.recent import BoundedMap
from ncps.errors import Corrupt, NotFound, Unavailable
from ncps.nix.narurl import NarKey
from ncps.observe.metrics import Metrics
from ncps.peering.tickets import Request, Ticket, stated_time
from ncps.ports import Peers, UpstreamBody
from ncps.upstream.agent import Answer, Client
from ncps.upstream.destination import Destination, Timeouts

TIMEOUTS: Final = Timeouts(connect_s=2.0, first_byte_s=10.0, nar_s=10.0, idle_s=30.0)
"""The first byte waits for the peer's own upstream, and a body stalls when that upstream stalls."""

MAX_CLIENTS: Final = 64
"""Peers whose connections are kept, at most; beyond that, the longest unused ones are closed."""

_CLOCKS: Final = 2
"""Clocks that are tried at one address, because several processes may answer there."""


@implementer(IAgentEndpointFactory)
class UnixEndpoints:
    """Connects to one socket, whatever the URL is."""

    def __init__(self, reactor: Any, path: str, timeout_s: float) -> None:
        self._endpoint = UNIXClientEndpoint(reactor, path, timeout=timeout_s)

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See `IAgentEndpointFactory`."""
        return self._endpoint


class PeerClients(Peers):
    """Asks other processes of the cache for NARs; see `ncps.ports.Peers`.

    :param secret: the secret of all processes of the cache, which signs tickets.
    :param via: our name in the Via header.
    :param siblings: sockets of the other workers of this daemon, as addresses.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        secret: str,
        via: str = "ncps",
        metrics: Metrics,
        siblings: Collection[str] = (),
    ) -> None:
        self._siblings = frozenset(siblings)
        self._reactor = reactor
        self._secret = secret
        self._via = via
        self._took = metrics.bytes_relayed.inc
        self._now = wall_of(reactor)
        self._peers: BoundedMap[str, _Peer] = BoundedMap(
            MAX_CLIENTS, forgotten=lambda peer: peer.client.discard()
        )

    async def find_nar(self, address: str, key: NarKey) -> str:
        answer = await self._ask("HEAD", address, key, 0)
        answer.body.close()
        return answer.header("x-ncps-file")

    async def open_nar(self, address: str, key: NarKey, *, offset: int = 0) -> UpstreamBody:
        answer = await self._ask("GET", address, key, offset)
        if answer.header("x-ncps-offset") != str(offset):
            answer.body.close()
            raise Corrupt("a peer sends another part of the NAR than the one requested")
        size = answer.content_length
        return PassedBody(
            self._counted(answer),
            answer.body.close,
            start=offset,
            total=None if size is None else offset + size,
        )

    async def _counted(self, answer: Answer) -> AsyncIterator[bytes]:
        async for chunk in answer.body:
            self._took(len(chunk))
            yield chunk

    async def _ask(self, method: str, address: str, key: NarKey, offset: int) -> Answer:
        """Send a request; return its answer if the status is 200, else raise an error."""
        url, _, worker = address.partition("#")
        where = worker if worker in self._siblings else url
        base = "http://peer" if where.startswith("unix:") else where.rstrip("/")
        named = worker if where == url else ""
        request = Request(
            method=method,
            path=f"/cluster/nar/{key.file_name}",
            offset=str(offset),
            worker=named,
        )
        answer = await self._admitted(where, base, request)
        if answer.status == 200:
            return answer
        answer.body.close()
        if answer.status == 404:
            raise NotFound(f"{key.file_name} is not arriving there")
        if answer.status == 401:
            raise Unavailable("a peer has another cluster-secret than this process")
        if answer.status == 421:
            raise Unavailable(f"another process answers at {where}: see cluster-advertise-url")
        raise Unavailable(f"status {answer.status}", retry_after=answer.retry_after_s)

    async def _admitted(self, where: str, base: str, request: Request) -> Answer:
        """Send a request; send it again if the peer's clock differs from the assumed one."""
        peer = self._peer(where)
        for _ in range(_CLOCKS + 1):
            ticket = Ticket.make(self._secret, where, self._now() + peer.ahead_s, request)
            headers = {"authorization": ticket.header(), "x-ncps-offset": request.offset}
            if request.worker:
                headers["x-ncps-worker"] = request.worker
            answer = await peer.client.request(
                request.method, f"{base}{request.path}", headers=headers, follows=False
            )
            if answer.status != 401:
                return answer
            time = stated_time(self._secret, ticket, answer.header("x-ncps-clock"))
            if time is None:
                return answer
            answer.body.close()
            peer.ahead_s = time - self._now()
        raise Unavailable(f"the clocks of the processes at {where} are too far apart")

    def _peer(self, address: str) -> _Peer:
        peer = self._peers.get(address)
        if peer is None:
            peer = _Peer(self._new(address))
            self._peers.put(address, peer)
        self._peers.renew(address)
        return peer

    def _new(self, address: str) -> Client:
        kind, _, path = address.partition(":")
        connect_s = TIMEOUTS.connect_s
        return Client(
            self._reactor,
            Destination(
                base_url="http://peer" if kind == "unix" else address,
                timeouts=TIMEOUTS,
                gets_traces=True,
            ),
            via=self._via,
            endpoints=UnixEndpoints(self._reactor, path, connect_s) if kind == "unix" else None,
        )

    async def close(self) -> None:
        """Close the idle connections."""
        for peer in self._peers.take_all():
            await peer.client.close()


@define
class _Peer:
    """A process at one address.

    :ivar ahead_s: seconds by which its clock is ahead of ours, as far as is known.
    """

    client: Client
    ahead_s: float = 0.0
