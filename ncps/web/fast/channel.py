"""A connection of a client, and the short cuts that its requests may take.

There are two. The connection does not parse a head again whose bytes were parsed before. If such a
head asks for a narinfo or a stored NAR whose answer is ready, and the client may read it, the
connection sends the answer immediately, without request or resource. Both are only for one whole
head that arrives in one piece between two requests. All other bytes go to
`HTTPChannel.dataReceived`.

`borrowed` lists the private names of Twisted that the web uses.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from ncps.auth.principal import Principal
from ncps.ports import SteadyFile
from ncps.web.clients import plain_address
from ncps.web.fast.bounded import BoundedChannel
from ncps.web.fast.heads import Head, KnownHead, head_of
from ncps.web.fast.hot import HotNarInfo
from ncps.web.fast.hot_nars import ROUTE, HotNar, Sent
from ncps.web.fast.ledger import Access
from ncps.web.fast.transport import PromptMixin, send_written

SEND_LIMIT = 1024 * 1024  # bytes offered to the kernel in one call; Twisted's limit is 128 KiB


class NcpsChannel(BoundedChannel):
    """A connection of a client."""

    _send: Callable[[bytes], None]
    _send_with_file: Callable[[bytes, SteadyFile, int], int | None] | None
    _peer: IAddress
    _host: IAddress
    client = ""
    """Address that the connection comes from; `clients.UNIX` for a UNIX socket."""
    is_proxied = False
    """Whether it comes from a trusted proxy, which names the clients of its requests."""
    noted_times = (0.0, 0.0)
    """The sending times of the connection, as a page last noted them; see `aio.sending_times`."""
    new_head: Head | None = None  # the head being parsed, if it came in one piece

    def connectionMade(self) -> None:
        """See `IProtocol`."""
        self._peer, self._host = self.transport.getPeer(), self.transport.getHost()
        self.client = plain_address(self._peer)
        self.is_proxied = self.site.proxies.trusts(self.client)
        self.transport.SEND_LIMIT = SEND_LIMIT
        if isinstance(self.transport, PromptMixin):
            self._send = self.transport.send_now
        else:  # of a test
            self._send = self.transport.write
        self._send_with_file = getattr(self.transport, "send_with_file", None)
        super().connectionMade()
        self.site.opened(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See `IProtocol`."""
        super().connectionLost(reason)
        self.site.closed(self)

    def getPeer(self) -> IAddress:
        """See `ITransport`; every request calls this, and Twisted's method calls the kernel."""
        return self._peer

    def getHost(self) -> IAddress:
        """See `ITransport`."""
        return self._host

    def dataReceived(self, data: bytes) -> None:
        """See `IProtocol`: take a short cut if there is one."""
        known = None
        if self._is_between and not self._buffer and len(data) <= self.totalHeadersSize:
            site, at = self.site, data.find(b" ", 5)
            known = site.heads.find(data[at:])
            if known is not None and known.is_plain:
                hot = site.hot.find(data[:at])
                if (
                    hot is not None
                    and site.answering < site.limits.max_requests
                    and hot.may_repeat()
                ):
                    reader = site.reader(self, known.headers)
                    if reader is not None:
                        self._repeat(hot, known, reader)
                        return
                elif hot is None and self._gives_file(data, at, known):
                    return
        send_written(self.transport, lambda: self._receive(data, known))

    def _receive(self, data: bytes, known: KnownHead | None) -> None:
        if self._lingering is not None:
            return
        is_between = self._is_between and not self._buffer
        head = head_of(data) if is_between else None
        if head is not None and len(data) - len(head.body) > self.totalHeadersSize:
            head = None
        if head is not None and head.length:
            known = self.site.heads.find(head.rest)
        if head is not None and known is not None:
            self._known_head_received(head, known)
            return
        self.new_head = head
        super().dataReceived(data)
        self._watch_head()

    def client_of(self, headers: Headers) -> str:
        """Return the address of the client that sent a request on this connection."""
        return self.site.proxies.client(self.client, headers) if self.is_proxied else self.client

    def _repeat(self, hot: HotNarInfo, known: KnownHead, reader: Principal) -> None:
        """Send the answer that the page has given before, without `Request` and `requestDone`."""
        site = self.site
        began = site.clock.seconds()
        self.resetTimeout()
        self._left_when_idle = 0
        self._send(b"".join((site.opening(), hot.head, hot.text)))
        ended = site.clock.seconds()
        site.ledger.add(
            Access(
                ended=ended,
                route=hot.route,
                method="GET",
                path=hot.path,
                status=200,
                size=len(hot.text),
                elapsed=ended - began,
                is_complete=True,
                cache=hot.cache,
                digest=hot.digest,
                upstream=hot.upstream,
                client=self.client_of(known.headers),
                user=reader.name,
                is_hot=True,
            )
        )

    def _gives_file(self, data: bytes, at: int, known: KnownHead) -> bool:
        """Answer with a file, if the answer is ready; False if nothing was offered to the socket.

        :param at: the end of the target in the head.
        """
        site = self.site
        hot = site.hot_nars.find(data[:at])
        if hot is None or self._send_with_file is None:
            return False
        if site.answering >= site.limits.max_requests:
            return False
        if self.is_proxied and not site.may_enter(self.client_of(known.headers)):
            return False
        reader = site.reader(self, known.headers)
        file = None if reader is None else hot.reopen()
        if reader is None or file is None:
            return False
        began = site.clock.seconds()
        try:
            head = site.opening() + hot.head
            count = self._send_with_file(head, file, hot.size)
        finally:
            os.close(file.fd)
        if count is None:
            return False
        if count == len(head) + hot.size:
            self._gave(hot, known, reader, began)
        else:
            sent = Sent(began=began, reader=reader, head=head, count=count)
            self._go_on(Head(data[4:at], data[at:]), known, lambda r: hot.go_on(r, sent))
        return True

    def _gave(self, hot: HotNar, known: KnownHead, reader: Principal, began: float) -> None:
        """Record a file that was sent completely."""
        self.resetTimeout()
        self._left_when_idle = 0
        ended = self.site.clock.seconds()
        self.site.ledger.add(
            Access(
                ended=ended,
                route=ROUTE,
                method="GET",
                path=hot.path,
                status=200,
                size=hot.size,
                elapsed=ended - began,
                is_complete=True,
                cache=hot.cache,
                digest=hot.key.file_name,
                upstream=hot.upstream,
                client=self.client_of(known.headers),
                user=reader.name,
                is_hot=True,
            )
        )

    def _go_on(self, head: Head, known: KnownHead, go_on: Callable[[Any], object]) -> None:
        """Make a request that sends the rest of an answer."""
        send_written(self.transport, lambda: self._known_head_received(head, known, go_on))

    def _known_head_received(
        self,
        head: Head,
        known: KnownHead,
        go_on: Callable[[Any], object] | None = None,
    ) -> None:
        """Do what `HTTPChannel` does at the end of a head, and with the body that came with it."""
        self._is_between = False
        self.new_head = None
        self.resetTimeout()
        request: Any = self.requestFactory(self, 0)
        request.requestHeaders, request.has_known_head = known.headers, True
        request.go_on = go_on
        self.requests.append(request)
        self._command, self._path, self._version = head.method, head.target, b"HTTP/1.1"
        if not head.length:
            request.gotLength(0)
            self.allContentReceived()
            return
        self._maybeChooseTransferDecoder(b"Content-Length", b"%d" % head.length)
        request.gotLength(head.length)
        self.setRawMode()
        if head.body:
            self.rawDataReceived(head.body)
