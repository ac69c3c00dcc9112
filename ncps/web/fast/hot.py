"""Narinfos whose whole answer lies ready, by the bytes a request for them begins with.

The page fills it, with answers that the core lets it repeat, and the channel gives them again to
heads that are plain. So nothing is answered from here that the page has not answered before, and
nothing that would now be answered otherwise: the core says of each whether it may be shown now,
and which have changed, and those are dropped. Whoever comes to decide that a narinfo is not for
everybody must not put it here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from attrs import frozen

from ncps.web.fast.ledger import Access

_OVERHEAD = 700  # bytes of Python objects per answer, beside its head; the text is the core's


@frozen(kw_only=True, eq=False)
class HotNarInfo:
    """An answer without its status line, `Server` and `Date`, and what the log says of it.

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
        self._max_bytes = max_bytes
        self._size = 0
        self._answers: OrderedDict[bytes, HotNarInfo] = OrderedDict()
        self.find = self._answers.get
        """Return the answer to a request that begins with these bytes, up to its version."""
        self.repeated: Callable[[Sequence[Access]], object] = len
        """Told, a while later, of the requests that were answered from here."""

    def __len__(self) -> int:
        return len(self._answers)

    def put(self, answer: HotNarInfo) -> None:
        """Have an answer ready, in place of an older one."""
        self.drop(answer.digest)
        self._answers[_beginning(answer.digest)] = answer
        self._size += len(answer.head) + _OVERHEAD
        while self._size > self._max_bytes and self._answers:
            self.drop(next(iter(self._answers.values())).digest)

    def drop(self, digest: str) -> None:
        """Have it ready no more; harmless if it was not."""
        answer = self._answers.pop(_beginning(digest), None)
        if answer is not None:
            self._size -= len(answer.head) + _OVERHEAD

    def close(self) -> None:
        """Hold nothing from now on: every request takes the ordinary road."""
        self._max_bytes = self._size = 0
        self._answers.clear()


def _beginning(digest: str) -> bytes:
    return b"GET /%b.narinfo" % digest.encode("ascii")
