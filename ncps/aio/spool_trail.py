"""The checks that read behind a spool; the spool waits only for those that are fast enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ncps.aio.growing import Digest
from ncps.aio.threads import Threads
from ncps.nix.trailing import TrailingDigest


class SpoolTrail:
    """The trailing digests of a spool, which get its bytes later than the file does.

    The bytes wait in memory, up to the limit of `ncps.nix.trailing`.

    :param digests: all digests of the spool; it feeds those itself that are not trailing.
    :param moved: called when a digest has read bytes or is given up.
    :param failed: called with the error that a digest has raised.
    :ivar digests: the trailing ones.
    """

    def __init__(
        self,
        digests: Sequence[Digest],
        workers: Threads,
        moved: Callable[[], object],
        failed: Callable[[BaseException], object],
    ) -> None:
        self.digests = [digest for digest in digests if isinstance(digest, TrailingDigest)]
        self._feeds = [_Feed(digest, workers, moved, failed) for digest in self.digests]

    @property
    def is_awaited(self) -> bool:
        """Whether a digest that is not given up still has bytes to read."""
        return any(feed.is_awaited for feed in self._feeds)

    def follow(self, pieces: Sequence[bytes]) -> None:
        """Queue more bytes for the digests; give up a digest that is too far behind."""
        for feed in self._feeds:
            feed.follow(pieces)

    def end(self) -> None:
        """Stop feeding the digests."""
        for feed in self._feeds:
            feed.end()


class _Feed:
    """One digest and the bytes that wait for it; a thread feeds it, one job at a time."""

    def __init__(
        self,
        digest: TrailingDigest,
        workers: Threads,
        moved: Callable[[], object],
        failed: Callable[[BaseException], object],
    ) -> None:
        self._digest = digest
        self._workers = workers
        self._moved = moved
        self._failed = failed
        self._pieces: list[bytes] = []
        self._behind = 0
        self._is_busy = False
        self._is_over = False

    @property
    def is_awaited(self) -> bool:
        return bool(self._behind) and not self._is_over

    def follow(self, pieces: Sequence[bytes]) -> None:
        if self._is_over:
            return
        self._pieces += pieces
        self._behind += sum(map(len, pieces))
        if self._digest.fell_behind(self._behind):
            self.end()
        else:
            self._kick()

    def end(self) -> None:
        self._is_over = True
        self._pieces.clear()

    def _kick(self) -> None:
        if self._is_busy or not self._pieces:
            return
        pieces, self._pieces = self._pieces, []
        self._is_busy = True
        job = Deferred.fromCoroutine(self._workers.run(_feed_blocking, self._digest, pieces))
        job.addCallbacks(self._fed, self._broke)

    def _fed(self, spent: _Spent) -> None:
        self._is_busy = False
        self._behind -= spent.size
        self._digest.took(spent.work_s, spent.elapsed_s)
        if self._digest.is_given_up:
            self.end()
            self._moved()
        elif not self._is_over:
            self._kick()
            self._moved()

    def _broke(self, failure: Failure) -> None:
        self._is_busy = False
        if not self._is_over:
            self.end()
            assert failure.value is not None
            self._failed(failure.value)


@frozen
class _Spent:
    """The cost of one job: bytes, seconds of a processor, and seconds by the clock."""

    size: int
    work_s: float
    elapsed_s: float


def _feed_blocking(digest: TrailingDigest, pieces: Sequence[bytes]) -> _Spent:
    work, began = time.thread_time(), time.monotonic()
    for piece in pieces:
        digest.feed(piece)
    size = sum(map(len, pieces))
    return _Spent(size, time.thread_time() - work, time.monotonic() - began)
