"""Site: the factory of connections, which also ends them.

It is the site of `twisted.web` with four additions. The head of a request has a deadline, even if
its bytes keep coming. A request with a body is refused before the body is read, unless its route
accepts one. Connections, heads and running requests are bounded (`ServerSettings`). Every request,
also one whose client left, is counted once and has one line in the log.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ncps.web.fast.channel import NcpsChannel
from ncps.web.request import NcpsRequest
from ncps.web.state import ClientConnection, SiteState


class NcpsSite(SiteState):
    """The factory of the connections, which ends them after their answers."""

    protocol = NcpsChannel  # type: ignore[assignment]  # Twisted's wrapper only serves HTTP/2
    requestFactory = NcpsRequest

    _emptied: Deferred[None] | None = None
    _cut_count = 0

    def closed(self, channel: ClientConnection) -> None:
        """Remove a connection; the last one ends `drain`."""
        super().closed(channel)
        if not self.channels and self._emptied is not None:
            emptied, self._emptied = self._emptied, None
            emptied.callback(None)

    async def drain(self, deadline: float) -> int:
        """Accept no further requests, wait for running responses, then cut the rest.

        Returns the number of connections that were cut after `deadline` seconds. Idle ones close
        immediately.
        """
        self.is_draining = True
        self.hot.close()
        self.hot_nars.close()
        for channel in list(self.channels):
            channel.end()
        late = self.clock.callLater(deadline, self.cut)
        self._cut_count = 0
        if self.channels:
            self._emptied = Deferred()
            await self._emptied
        if late.active():
            late.cancel()
        self.ledger.settle()
        return self._cut_count

    def cut(self) -> None:
        """Cut every connection immediately; `drain` returns their number."""
        self._cut_count = len(self.channels)
        for channel in list(self.channels):
            channel.transport.abortConnection()
