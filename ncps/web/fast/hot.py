"""Narinfos whose whole answer is ready, by the first bytes of a request for them.

The page puts answers here that the core allows it to repeat, and the channel sends them again for
heads that are plain. So the page has given each answer before, and would give the same again: the
core says whether an answer may be repeated, and drops answers that have changed. If reads are
closed, the channel asks the guard about each client; only clients that may read all paths get
these answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen
from twisted.web.http_headers import Headers

from ncps.aio.recent import BoundedMap
from ncps.web.fast.ledger import Access

_OF_THE_MOMENT = {
    b"Server": None,  # in the first lines of every answer, as is Date
    b"Date": None,
    b"Connection": None,
    b"Server-Timing": b"total;dur=0.0",  # it takes less than a tenth of a millisecond
}

_OVERHEAD = 700  # bytes of Python objects per answer without its head; the core holds the text


@frozen(kw_only=True, eq=False)
class HotNarInfo:
    """An answer without its status line, `Server` and `Date`, with its fields of the log.

    :param head: all other header lines, and the empty line.
    :param may_repeat: whether the answer may be sent again now.
    """

    digest: str
    path: str
    route: str
    head: bytes
    text: bytes
    may_repeat: Callable[[], bool]
    cache: str
    upstream: str


class HotNarInfos:
    """Answers by method and target; the oldest are dropped first.

    :param max_bytes: limit of the memory, without the texts; with 0 no answer is held.
    """

    def __init__(self, max_bytes: int) -> None:
        self._answers: BoundedMap[bytes, HotNarInfo] = BoundedMap(max_bytes, size_of=_size)
        self._is_closed = False
        self.are_private = False
        """Whether answers forbid proxies to keep them, since reads are closed."""
        self.find = self._answers.get
        """Return the answer to a request that begins with these bytes, up to its version."""
        self.repeated: Callable[[Sequence[Access]], object] = len
        """Called later, in batches, with the requests that were answered from here."""

    def __len__(self) -> int:
        return len(self._answers)

    def put(self, answer: HotNarInfo) -> None:
        """Hold an answer; it replaces an older one."""
        if not self._is_closed:
            self._answers.put(_beginning(answer.digest), answer)

    def drop(self, digest: str) -> None:
        """Drop an answer if there is one."""
        self._answers.forget(_beginning(digest))

    def forget(self) -> None:
        """Drop all answers, but accept new ones."""
        self._answers.clear()

    def close(self) -> None:
        """Hold no answer from now on, so that every request is answered in the usual way."""
        self._is_closed = True
        self._answers.clear()


def _size(answer: HotNarInfo) -> int:
    return len(answer.head) + _OVERHEAD


def _beginning(digest: str) -> bytes:
    return b"GET /%b.narinfo" % digest.encode("ascii")


def rest_of_head(headers: Headers) -> bytes:
    """Return the head of an answer to repeat, without the first lines of every answer."""
    lines = []
    for name, values in headers.getAllRawHeaders():
        value = _OF_THE_MOMENT.get(name, values[0])
        if value is not None:
            lines.append(b"%b: %b\r\n" % (name, value))
    return b"".join(lines) + b"\r\n"
