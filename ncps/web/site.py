"""Site: the factory of connections, which also ends them.

Stock `twisted.web` with four things added. A connection must finish the head of a request within
a deadline, however it trickles. A request that brings a body is refused before the body is read,
as long as no route takes one. Connections, heads and requests under way are bounded
(`ServerSettings`).
Every request, also one whose client left, is counted once and gives one line in the log.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ncps.web.fast.channel import NcpsChannel
from ncps.web.request import NcpsRequest
from ncps.web.state import ClientConnection, SiteState


class NcpsSite(SiteState):
    """The factory of the connections; ends them in order."""

    protocol = NcpsChannel  # type: ignore[assignment]  # Twisted's wrapper only serves HTTP/2
    requestFactory = NcpsRequest

    _emptied: Deferred[None] | None = None
    _cut_count = 0

    def closed(self, channel: ClientConnection) -> None:
        """Count a connection out; the last one ends `drain`."""
        super().closed(channel)
        if not self.channels and self._emptied is not None:
            emptied, self._emptied = self._emptied, None
            emptied.callback(None)

    async def drain(self, deadline: float) -> int:
        """Let running responses end, take no further request, then cut what is left.

        Returns how many connections were cut after `deadline` seconds. Idle ones close at once.
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
        """End every connection at once; `drain` returns how many those were."""
        self._cut_count = len(self.channels)
        for channel in list(self.channels):
            channel.transport.abortConnection()
