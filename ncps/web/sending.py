"""Answers from a file, which the transport can send without Twisted's buffers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ncps.aio.streams import unsent
from ncps.errors import NcpsError
from ncps.ports import Segment
from ncps.web.answer import AnswerableRequest


class FileRequest(AnswerableRequest):
    """A request whose answer the transport may send from a file."""

    go_on: Callable[[Any], object] | None = None
    """Sends the rest of an answer that the connection has begun; None if it has begun none."""

    def send_segment(self, segment: Segment, offset: int, count: int) -> bool:
        """Send bytes of a segment as part of the body; False if the caller has to write them.

        Bytes that are not in memory are not sent: see `take_unread`. Only for a body of known
        length whose head was written.
        """
        send = getattr(self.channel.transport, "send_file", None)
        if send is None or not self.startedWriting or self.finished or self.gone:
            return False
        if not send(segment.fd, offset, count, is_growing=segment.is_growing):
            return False
        self.sentLength += count
        return True

    def take_unread(self) -> int:
        """Return the number of bytes of `send_segment` that were not in memory, and not sent."""
        take = getattr(self.channel.transport, "take_unread", None)
        unread: int = 0 if take is None else take()
        self.sentLength -= unread
        return unread

    @property
    def file_trouble(self) -> NcpsError | None:
        """The error of the file for which the connection was cut."""
        trouble: NcpsError | None = getattr(self.channel.transport, "file_trouble", None)
        return trouble

    def unsent(self) -> int:
        """Return the number of bytes on this connection that the client has not acknowledged."""
        return unsent(self.channel.transport)
