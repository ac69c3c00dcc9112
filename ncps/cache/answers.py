"""What the cache core can be asked, and what it answers: all that the web floor knows of it.

The verbs raise the errors of `ncps.errors`: NotFound means not to be had through this cache now,
everything else means that nothing is known. An answer is whole or it is an error.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Protocol

from attrs import field, frozen

from ncps.errors import Corrupt, NotFound
from ncps.nix.narurl import NarKey
from ncps.ports import Body, NarRecord
from ncps.ranges import entity_tag

NO_TIMINGS: Mapping[str, float] = MappingProxyType({})


class Outcome(enum.Enum):
    """How the cache came by an answer; the value is shown to clients."""

    HIT = "hit"  # from what is kept here
    MISS = "miss"  # fetched for this request
    COALESCED = "coalesced"  # shares a fetch that was on its way already
    NEGATIVE = "negative"  # an absence that is still remembered
    UNSURE = "unsure"  # an absence that not everybody could be asked about
    AWAY = "away"  # an absence because nobody could be asked
    RING = "ring"  # an absence because the question has come round to us


class Absent(NotFound):
    """A NotFound that says how it is known: MISS, NEGATIVE, UNSURE, AWAY or RING.

    Only the first two are certain.
    """

    def __init__(self, message: str, *, outcome: Outcome) -> None:
        super().__init__(message, is_certain=outcome in {Outcome.MISS, Outcome.NEGATIVE})
        self.outcome = outcome


class Resized(Corrupt):
    """A NAR turned out to have another size than it was said to have when its body was opened.

    The one of now is right so far; who has told nobody of the other may open the body again.
    """


class WrongBytesSent(Corrupt):
    """A body has broken off because bytes of it that were given before turned out wrong."""


@frozen(kw_only=True)
class ServedNarInfo:
    """A narinfo for a client.

    :param text: rendered and signed.
    :param tag: its entity tag, as in ETag.
    :param upstream: name of the upstream it came from; empty if unknown.
    :param nar: what is known of the NAR that it names.
    :param may_repeat: says each time it is called whether `narinfo` would give this answer again;
        good until what was given to `Cache.watch` is told of the digest, and to be kept before
        the next await or not at all. None: `narinfo` must be asked.
    :param timings: seconds spent by named parts, for `Server-Timing`; names are tokens.
    """

    text: bytes
    outcome: Outcome
    upstream: str = ""
    nar: NarRecord | None = None
    timings: Mapping[str, float] = NO_TIMINGS
    may_repeat: Callable[[], bool] | None = None
    tag: bytes = field()

    @tag.default
    def _tag(self) -> bytes:
        return entity_tag(self.text)


class ServedNar(Protocol):
    """An opened NAR. Whoever opened it closes it once; bodies taken from it end with that."""

    @property
    def key(self) -> NarKey:
        """The name it was asked by."""

    @property
    def size(self) -> int | None:
        """Bytes behind the URL in all, if known by now.

        While they arrive it may be an upstream's word, and change when that is found out to lie.
        """

    @property
    def outcome(self) -> Outcome:
        """How the cache came by it."""

    @property
    def upstream(self) -> str:
        """Name of the upstream it came or is coming from; empty if unknown."""

    @property
    def timings(self) -> Mapping[str, float]:
        """Seconds spent by named parts until it was open, for `Server-Timing`."""

    async def known_size(self) -> int:
        """Wait until the size is known, perhaps for a download's end; `size` says it from then on.

        Unavailable, Corrupt.
        """

    async def final_size(self) -> int:
        """Wait until the size is known and no upstream's word: where a client has to be refused.

        Unavailable, Corrupt.
        """

    async def location(self) -> str | None:
        """Return a URL to send the client to for the bytes, which are there; None: send them.

        Unavailable.
        """

    async def body(self, start: int = 0, stop: int | None = None) -> Body:
        """Bytes `start` to `stop` (exclusive, default the end), also while they are arriving.

        To be called before any header is sent: an object that turns out missing or of the wrong
        size is fetched again here. NotFound, Unavailable, Corrupt.
        """

    async def spoiled(self, error: Corrupt) -> bool:
        """Take note that a body broke off like this; whether to open the NAR anew may go better.

        Unavailable.
        """

    def close(self) -> None:
        """Let go of it; a download goes on without its readers."""


class ArrivingNar(ServedNar, Protocol):
    """A NAR on its way into the store."""

    @property
    def file(self) -> str:
        """Names the file that arrives: files of one name have the same bytes."""


@frozen(kw_only=True)
class Readiness:
    """Whether the cache can serve.

    :param parts: what was looked at (`database`, `storage`, ...) -> "ok" or what is wrong.
    :param needed: the parts without which nothing can be served; others only degrade.
    :param ages: of parts that were looked at for this, how many seconds ago they were as is said.
    """

    parts: Mapping[str, str]
    needed: frozenset[str] = frozenset()
    ages: Mapping[str, float] = field(factory=dict)

    @property
    def is_ready(self) -> bool:
        """Whether every needed part is well."""
        return all(self.parts.get(part) == "ok" for part in self.needed)


class Cache(Protocol):
    """The cache core as the web floor sees it."""

    @property
    def public_key(self) -> str:
        """The key that our signatures are made with, `name:base64`."""

    async def narinfo(self, digest: str) -> ServedNarInfo:
        """Find or fetch the narinfo of a store path's hash part (valid nix32).

        NotFound, Unavailable, Corrupt.
        """

    def watch(self, forgotten: Callable[[str], object]) -> None:
        """Have `forgotten` told of each digest whose answer may be another from now on."""

    def repeated(self, digests: Collection[str]) -> None:
        """Take note that answers were given again, without asking `narinfo`."""

    async def key_of(self, digest: str, file_name: str) -> NarKey:
        """Return the name of a NAR that has an old name, by the hash part of its store path.

        :param file_name: the old name, which begins with that hash part; see `old_names`.

        NotFound: also of another file of that NAR; else as for `narinfo`.
        """

    async def nar(self, key: NarKey, *, is_part: bool = False) -> ServedNar:
        """Open a NAR, from the store or from a download that it starts or joins.

        :param is_part: whether only a part is wanted, by somebody who may have the rest already.

        NotFound, Unavailable, Corrupt.
        """

    async def arriving_nar(self, key: NarKey) -> ArrivingNar:
        """Open a NAR that is being downloaded, for another process of this cache.

        Nothing is fetched for it. NotFound: it is not arriving here; else as for `nar`.
        """

    async def stat_nar(self, key: NarKey) -> tuple[int | None, Outcome]:
        """Say whether `nar` would succeed, and the size if it is known. Errors as for `nar`."""

    async def readiness(self) -> Readiness:
        """Look at every part now, for less than a second; raises nothing."""
