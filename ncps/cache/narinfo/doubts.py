"""Doubts: upstreams whose narinfo of a path has lately led to no good NAR.

URL, FileHash and FileSize are not signed, so a narinfo may bear a good signature and still be
wrong. Whoever sent it is asked last for that path, for a while, so that one liar that is asked
first does not keep everybody from what the others have.
"""

from __future__ import annotations

from collections import OrderedDict

from twisted.internet.interfaces import IReactorTime

DOUBT_S = 600.0
MAX_PATHS = 10_000


class Doubts:
    """Remembers upstreams by path; the oldest paths go first."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._doubted: OrderedDict[str, tuple[float, frozenset[str]]] = OrderedDict()

    def add(self, digest: str, base_url: str) -> None:
        """Doubt what an upstream says of a store path's hash part."""
        until = self._clock.seconds() + DOUBT_S
        self._doubted[digest] = until, self.about(digest) | {base_url}
        self._doubted.move_to_end(digest)
        while len(self._doubted) > MAX_PATHS:
            self._doubted.popitem(last=False)

    def about(self, digest: str) -> frozenset[str]:
        """Base URLs of the upstreams that are in doubt about a path."""
        until, doubted = self._doubted.get(digest, (0.0, frozenset()))
        return doubted if until > self._clock.seconds() else frozenset()
