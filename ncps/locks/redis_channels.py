"""What replicas tell each other through Redis: leases that were released, and notices.

    <prefix>#<db>:released    the name of a lease
    <prefix>#<db>:notices     "<sender> <kind> <name>"

Channels are the same in all databases of a server, hence the number in their names. What is
published while nobody listens is gone: after every connection but the first all who wait for a
lease look for themselves, and subscribers hear of a gap.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, get_args

from twisted.logger import Logger

from ncps.errors import Refused, Unavailable
from ncps.locks.redis_link import RedisLink, RedisPlace
from ncps.locks.redis_wire import Wire
from ncps.ports import Notice, NoticeKind, Notices

LONGEST_NAME = 512
MOST_UNSENT = 1000
KINDS: frozenset[str] = frozenset(get_args(NoticeKind)) - {"gap"}


def pack(sender: str, notice: Notice) -> str:
    """Write a notice as one line."""
    return f"{sender} {notice.kind} {notice.name}"


def unpack(sender: str, text: bytes) -> Notice | None:
    """Read a notice; None for our own, and for what a newer version may say."""
    if len(text) > LONGEST_NAME + 100:
        return None
    who, _, rest = text.decode("utf-8", "replace").partition(" ")
    kind, _, name = rest.partition(" ")
    if who == sender or kind not in KINDS:
        return None
    return Notice(kind, name)  # type: ignore[arg-type]  # just looked up


class RedisChannels:
    """The listening connection."""

    _log = Logger()

    def __init__(self, reactor: Any, place: RedisPlace, *, prefix: str) -> None:
        self.released = f"{prefix}#{place.db}:released"
        self.notices = f"{prefix}#{place.db}:notices"
        self._link = RedisLink(reactor, place, subject="", greet=self._greet, is_subscriber=True)
        self._ring: Callable[[str], None] = lambda _name: None
        self._ring_all: Callable[[], None] = lambda: None
        self._told: Callable[[bytes], None] = lambda _text: None
        self._missed: Callable[[], None] = lambda: None
        self._may_have_missed = False
        self._is_forbidden = False

    def on_release(self, ring: Callable[[str], None], ring_all: Callable[[], None]) -> None:
        """Name who is called with the name of a lease, and who when some may have been missed."""
        self._ring, self._ring_all = ring, ring_all

    def on_notice(self, told: Callable[[bytes], None], missed: Callable[[], None]) -> None:
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
            self._told(text)


class RedisNotices(Notices):
    """See `ncps.ports.Notices`.

    :param link: for what is said here; `channels` are listened to.
    """

    def __init__(self, link: RedisLink, channels: RedisChannels) -> None:
        self._link = link
        self._channels = channels
        self._sender = secrets.token_hex(8)
        self._subscribers: list[Callable[[Notice], None]] = []
        self._unsent = 0
        channels.on_notice(self._heard, self._missed)

    async def publish(self, notice: Notice) -> None:
        if notice.kind == "gap" or len(notice.name) > LONGEST_NAME or self._unsent >= MOST_UNSENT:
            return
        words = ("PUBLISH", self._channels.notices, pack(self._sender, notice))
        self._unsent += 1
        try:
            await self._link.call(lambda wire: wire.say(*words))
        except Unavailable:
            pass  # best effort
        finally:
            self._unsent -= 1

    def subscribe(self, told: Callable[[Notice], None]) -> None:
        self._subscribers.append(told)

    def _heard(self, text: bytes) -> None:
        notice = unpack(self._sender, text)
        if notice is not None:
            self._tell(notice)

    def _missed(self) -> None:
        self._tell(Notice("gap"))

    def _tell(self, notice: Notice) -> None:
        for told in self._subscribers:
            told(notice)
