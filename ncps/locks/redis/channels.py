"""What replicas tell each other through Redis: leases that were released, and notices.

    <prefix>#<db>:released    the name of a lease
    <prefix>#<db>:notices     see `notices`

Channels are the same in all databases of a server, hence the number in their names. What is
published while nobody listens is gone: after every connection but the first all who wait for a
lease look for themselves, and subscribers hear of a gap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from ncps.errors import Refused
from ncps.locks.notices import SharedNotices
from ncps.locks.redis.link import RedisLink, RedisPlace
from ncps.locks.redis.protocol import Wire


class RedisChannels:
    """The listening connection."""

    _log = Logger()

    def __init__(self, reactor: Any, place: RedisPlace, *, prefix: str) -> None:
        self.released = f"{prefix}#{place.db}:released"
        self.notices = f"{prefix}#{place.db}:notices"
        self._link = RedisLink(reactor, place, subject="", greet=self._greet, is_subscriber=True)
        self._ring: Callable[[str], None] = lambda _name: None
        self._ring_all: Callable[[], None] = lambda: None
        self._told: Callable[[str], None] = lambda _text: None
        self._missed: Callable[[], None] = lambda: None
        self._may_have_missed = False
        self._is_forbidden = False

    def on_release(self, ring: Callable[[str], None], ring_all: Callable[[], None]) -> None:
        """Name who is called with the name of a lease, and who when some may have been missed."""
        self._ring, self._ring_all = ring, ring_all

    def on_notice(self, told: Callable[[str], None], missed: Callable[[], None]) -> None:
        """Name who is called with the text of a notice, and who when some may have been missed."""
        self._told, self._missed = told, missed

    async def start(self) -> None:
        """Subscribe, now or as soon as Redis is there."""
        await self._link.start()
        self._may_have_missed = True

    async def stop(self) -> None:
        """Disconnect."""
        await self._link.stop()

    async def _greet(self, wire: Wire) -> None:
        wire.listen(self._heard)
        try:
            for channel in (self.released, self.notices):
                await wire.say("SUBSCRIBE", channel)
        except Refused as error:
            if not self._is_forbidden:
                self._is_forbidden = True
                self._log.warn(
                    "no messages of other replicas: {reason}; allow the channels {channels}",
                    reason=str(error),
                    channels=f"{self.released}, {self.notices}",
                )
        if self._may_have_missed:
            self._ring_all()
            self._missed()
        self._may_have_missed = True

    def _heard(self, channel: bytes, text: bytes) -> None:
        if channel == self.released.encode():
            self._ring(text.decode("utf-8", "replace"))
        elif channel == self.notices.encode():
            self._told(text.decode("utf-8", "replace"))


def redis_notices(link: RedisLink, channels: RedisChannels) -> SharedNotices:
    """Make notices that are said over `link` and heard over `channels`."""

    async def send(text: str) -> None:
        await link.call(lambda wire: wire.say("PUBLISH", channels.notices, text))

    notices = SharedNotices(send)
    channels.on_notice(notices.heard, notices.missed)
    return notices
