"""Stored NARs whose answer is ready, except the bytes, which are read from the file each time.

The page puts an answer here once it has sent a whole stored NAR. The channel sends it again for
heads that are plain: it opens the file, if the kernel can do that from memory, and sends the head
and the file in one turn. If the socket accepts only a part, or the kernel has only a part in
memory, a request begins in the middle of its answer (`HotNar.go_on`) and sends the rest in the
usual way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from attrs import frozen

from ncps.aio.recent import BoundedMap
from ncps.auth.principal import Principal
from ncps.nix.narurl import NarKey
from ncps.ports import Reopen
from ncps.web.fast.ledger import Access

ROUTE: Final = "/nar/{file}"

_OVERHEAD = 2000  # bytes of Python objects per answer, without its head


@frozen(kw_only=True)
class Sent:
    """The part of an answer that the channel has sent.

    :param began: the time of the clock when the answer began.
    :param head: the whole head.
    :param count: bytes of head and file that were sent.
    """

    began: float
    reader: Principal
    head: bytes
    count: int


@frozen(kw_only=True, eq=False)
class HotNar:
    """An answer without its status line, `Server` and `Date`, with its fields of the log.

    :param head: all other header lines, and the empty line.
    :param size: bytes of the file.
    :param reopen: opens the file, if the answer may be sent again.
    :param go_on: sends the rest of an answer, on a request.
    """

    key: NarKey
    path: str
    head: bytes
    size: int
    reopen: Reopen
    cache: str
    upstream: str
    go_on: Callable[[Any, Sent], object]


class HotNars:
    """Answers by method and target; the oldest are dropped first.

    :param max_bytes: limit of the memory; with 0 no answer is held.
    :ivar are_private: whether answers forbid proxies to keep them, since reads are closed.
    """

    def __init__(self, max_bytes: int) -> None:
        self._answers: BoundedMap[bytes, HotNar] = BoundedMap(max_bytes, size_of=_size)
        self.are_private = False
        self._is_closed = False
        self.find = self._answers.get
        """Return the answer to a request that begins with these bytes, up to its version."""
        self.repeated: Callable[[Sequence[Access]], object] = len
        """Called later, in batches, with the requests that were answered from here."""

    def __len__(self) -> int:
        return len(self._answers)

    def put(self, answer: HotNar) -> None:
        """Hold an answer; it replaces an older one."""
        if not self._is_closed:
            self._answers.put(_beginning(answer.key), answer)

    def drop(self, key: NarKey | None) -> None:
        """Drop the answer of a NAR if there is one, or all answers for None."""
        if key is None:
            self._answers.clear()
        else:
            self._answers.forget(_beginning(key))

    def close(self) -> None:
        """Hold no answer from now on, so that every request is answered in the usual way."""
        self._is_closed = True
        self._answers.clear()


def _size(answer: HotNar) -> int:
    return len(answer.head) + _OVERHEAD


def _beginning(key: NarKey) -> bytes:
    return b"GET /%b" % key.url.encode("ascii")
