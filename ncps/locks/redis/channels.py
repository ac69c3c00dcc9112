"""RedisChannels: messages of other replicas through Redis, about released leases and notices.

    <prefix>#<db>:released    the name of a lease
    <prefix>#<db>:notices     see `ncps.locks.notices`

All databases of a server share their channels, hence the number in their names. Messages are lost
while this process is not connected. So after every connection but the first each coroutine that
waits for a lease asks again, and `ncps.locks.redis.carrier` checks whether notices were missed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from ncps.errors import NcpsError, Refused
from ncps.locks.keeper import Keeper
from ncps.locks.redis.address import RedisAddress
from ncps.locks.redis.client import CHECK_S, RedisServer
from ncps.locks.redis.connection import RedisConnection


class RedisChannels(RedisServer):
    """The connection that receives the messages of other replicas.

    :ivar is_up: whether it receives messages now.
    """

    _log = Logger()

    def __init__(self, reactor: Any, address: RedisAddress, *, prefix: str) -> None:
        super().__init__(reactor, address, greet=self._subscribe, is_subscriber=True)
        self.is_up = False
        self.released = f"{prefix}#{address.db}:released"
        self.notices = f"{prefix}#{address.db}:notices"
        self._keeper = Keeper(reactor, self, check_s=CHECK_S)
        self._wake: Callable[[str], None] = lambda _name: None
        self._wake_all: Callable[[], None] = lambda: None
        self._deliver: Callable[[str], None] = lambda _text: None
        self._again: Callable[[], None] = lambda: None
        self._is_forbidden = False

    def on_release(self, wake: Callable[[str], None], wake_all: Callable[[], None]) -> None:
        """Call `wake` with the name of each released lease, `wake_all` after a gap."""
        self._wake, self._wake_all = wake, wake_all

    def on_notice(self, deliver: Callable[[str], None], again: Callable[[], None]) -> None:
        """Call `deliver` with the text of each notice, `again` after each new connection."""
        self._deliver, self._again = deliver, again

    async def start(self) -> None:
        """Subscribe, now or as soon as Redis answers."""
        await self._keeper.start()

    async def stop(self) -> None:
        """Disconnect."""
        await self._keeper.stop()

    def connected(self, is_first: bool) -> None:
        """See `Server`."""
        self.is_up = True
        if not is_first:
            self._wake_all()
            self._again()

    def lost(self, reason: NcpsError) -> None:
        """See `Server`."""
        self.is_up = False

    async def _subscribe(self, connection: RedisConnection) -> None:
        connection.listen(self._received)
        try:
            for channel in (self.released, self.notices):
                await connection.command("SUBSCRIBE", channel)
        except Refused as error:
            if not self._is_forbidden:
                self._is_forbidden = True
                self._log.warn(
                    "no messages of other replicas: {reason}; allow the channels {channels}",
                    reason=str(error),
                    channels=f"{self.released}, {self.notices}",
                )

    def _received(self, channel: bytes, text: bytes) -> None:
        if channel == self.released.encode():
            self._wake(text.decode("utf-8", "replace"))
        elif channel == self.notices.encode():
            self._deliver(text.decode("utf-8", "replace"))
