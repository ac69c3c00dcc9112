"""Narinfos whose whole answer lies ready, by the bytes a request for them begins with.

The page puts answers here that the core lets it repeat, and the channel gives them again to heads
that are plain. So the page has given each answer before, and would give the same now: the core says
of each whether it may be shown, and drops those that have changed. Where reads are closed, the
channel asks the guard about each client; only clients that may read all paths get an answer here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen
from twisted.web.http_headers import Headers

from ncps.aio.recent import BoundedMap
from ncps.web.fast.ledger import Access

_OF_THE_MOMENT = {
    b"Server": None,  # begins every answer, as does the next
    b"Date": None,
    b"Connection": None,
    b"Server-Timing": b"total;dur=0.0",  # in tenths of milliseconds, of which it takes none
}

_OVERHEAD = 700  # bytes of Python objects per answer, beside its head; the text is the core's


@frozen(kw_only=True, eq=False)
class HotNarInfo:
    """An answer without its status line, `Server` and `Date`, and its facts for the log.

    :param head: all other header lines, and the empty line.
    :param may_repeat: asked before it is given again.
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
    """Answers by method and target. The oldest go first.

    :param max_bytes: bound on all that is held beside the texts; 0 holds nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._answers: BoundedMap[bytes, HotNarInfo] = BoundedMap(max_bytes, size_of=_size)
        self._is_closed = False
        self.are_private = False
        """Whether answers say that no proxy may keep them: where reads are closed."""
        self.find = self._answers.get
        """Return the answer to a request that begins with these bytes, up to its version."""
        self.repeated: Callable[[Sequence[Access]], object] = len
        """Called a while later with the requests that were answered from here."""

    def __len__(self) -> int:
        return len(self._answers)

    def put(self, answer: HotNarInfo) -> None:
        """Hold an answer, in place of an older one."""
        if not self._is_closed:
            self._answers.put(_beginning(answer.digest), answer)

    def drop(self, digest: str) -> None:
        """Drop an answer; harmless if there is none."""
        self._answers.forget(_beginning(digest))

    def forget(self) -> None:
        """Drop all answers; the next ones are put here again."""
        self._answers.clear()

    def close(self) -> None:
        """Hold nothing from now on: every request takes the ordinary road."""
        self._is_closed = True
        self._answers.clear()


def _size(answer: HotNarInfo) -> int:
    return len(answer.head) + _OVERHEAD


def _beginning(digest: str) -> bytes:
    return b"GET /%b.narinfo" % digest.encode("ascii")


def rest_of_head(headers: Headers) -> bytes:
    """Return the head of an answer for repetition, without the lines that begin every answer."""
    lines = []
    for name, values in headers.getAllRawHeaders():
        value = _OF_THE_MOMENT.get(name, values[0])
        if value is not None:
            lines.append(b"%b: %b\r\n" % (name, value))
    return b"".join(lines) + b"\r\n"
