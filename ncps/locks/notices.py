"""SharedNotices: notices as lines of text, over any carrier that sends lines to all replicas."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import get_args

from ncps.errors import Unavailable
from ncps.ports import Notice, NoticeKind, Notices

LONGEST_NAME = 512
MOST_UNSENT = 1000
"""Notices that this process may send at the same time; further ones are dropped."""
KINDS: frozenset[str] = frozenset(get_args(NoticeKind)) - {"gap"}


def pack(sender: str, notice: Notice) -> str:
    """Return a notice as one line: `<sender> <kind> <name>`."""
    return f"{sender} {notice.kind} {notice.name}"


def unpack(sender: str, text: str) -> Notice | None:
    """Read a line; None for a line of this process, and for an unknown kind of notice."""
    if len(text) > LONGEST_NAME + 100:
        return None
    origin, _, rest = text.partition(" ")
    kind, _, name = rest.partition(" ")
    if origin == sender or kind not in KINDS:
        return None
    return Notice(kind, name)  # type: ignore[arg-type]  # just looked up


class SharedNotices(Notices):
    """A set of notices of this process and of others, over a carrier.

    :param send: sends a line to all replicas, perhaps to this one as well. Raises Unavailable if
        that fails.
    """

    def __init__(self, send: Callable[[str], Awaitable[object]]) -> None:
        self._send = send
        self._sender = secrets.token_hex(8)
        self._subscribers: list[Callable[[Notice], None]] = []
        self._unsent = 0

    async def publish(self, notice: Notice) -> None:
        if notice.kind == "gap" or len(notice.name) > LONGEST_NAME or self._unsent >= MOST_UNSENT:
            return
        self._unsent += 1
        try:
            await self._send(pack(self._sender, notice))
        except Unavailable:
            pass  # best effort
        finally:
            self._unsent -= 1

    def subscribe(self, subscriber: Callable[[Notice], None]) -> None:
        self._subscribers.append(subscriber)

    def received(self, text: str) -> None:
        """Pass a line that arrived to the subscribers."""
        notice = unpack(self._sender, text)
        if notice is not None:
            self._tell(notice)

    def missed(self) -> None:
        """Tell the subscribers that lines may have been lost."""
        self._tell(Notice("gap"))

    def _tell(self, notice: Notice) -> None:
        for subscriber in self._subscribers:
            subscriber(notice)
