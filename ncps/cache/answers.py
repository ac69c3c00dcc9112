"""The verbs of the cache core, and its answers: all that the web floor knows of it.

The verbs raise the errors of `ncps.errors`: NotFound means "not available through this cache
now"; each other error means that nothing is known. An answer is whole or it is an error.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple, Protocol

from attrs import field, frozen

from ncps.auth.principal import Principal
from ncps.errors import Corrupt, NotFound
from ncps.nix.narurl import NarKey
from ncps.nix.realisation import RealisationKey
from ncps.ports import Body, NarRecord, Reopen


class Outcome(enum.Enum):
    """How the cache came by an answer; the value is shown to clients."""

    HIT = "hit"  # from what is kept here
    MISS = "miss"  # fetched for this request
    COALESCED = "coalesced"  # shares a fetch that was on its way already
    NEGATIVE = "negative"  # an absence that is still remembered
    UNSURE = "unsure"  # an absence that some upstreams could not be asked about
    AWAY = "away"  # an absence because no upstream could be asked
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

    The new size is right so far. A caller that has told no client of the old one may open the body
    again.
    """


class WrongBytesSent(Corrupt):
    """A body has broken off because bytes of it that were given before turned out wrong."""


class ServedNarInfo(NamedTuple):
    """A narinfo for a client: a plain value, since each answer makes one.

    :param text: rendered and signed.
    :param tag: its entity tag, as in ETag.
    :param upstream: name of the upstream it came from; empty if unknown.
    :param nar: the record of the NAR that it names.
    :param may_repeat: says each time it is called whether `narinfo` would give this answer again.
        It is good until the function given to `Cache.watch` is told of the digest. A caller keeps
        it before its next await, or not at all. None if `narinfo` must be asked.
    """

    text: bytes
    tag: bytes
    outcome: Outcome
    upstream: str = ""
    nar: NarRecord | None = None
    may_repeat: Callable[[], bool] | None = None


class ServedRealisation(NamedTuple):
    """A realisation for a client; the other fields are those of `ServedNarInfo`.

    :param path: base name of the store path that it names.
    """

    text: bytes
    tag: bytes
    outcome: Outcome
    upstream: str = ""
    path: str = ""


class RealisationUpload(enum.Enum):
    """The result of an upload; the value is shown to clients."""

    CREATED = "created"  # there was none before
    SAME = "same"  # it was there already, perhaps with fewer signatures
    REPLACED = "replaced"  # another one was there, with less behind it
    LEFT = "left"  # another one is there, and stays


class RealisationCache(Protocol):
    """The verbs for realisations."""

    async def get(self, key: RealisationKey, *, is_local: bool = False) -> ServedRealisation:
        """Return a realisation. Raises NotFound (Absent), Unavailable or Corrupt.

        :param is_local: whether no upstream is asked.
        """

    async def accept(
        self, key: RealisationKey, text: bytes, principal: Principal
    ) -> RealisationUpload:
        """Keep an upload, durably.

        Raises Malformed, Refused if the client may not write the path or nobody vouches for it,
        Conflict if another one has more behind it, StorageFull or Unavailable if nothing can be
        written.
        """

    async def forget(self, key: RealisationKey, principal: Principal) -> bool:
        """Drop a realisation; False if there is none.

        Raises Refused if the client may not delete the path that it names, Unavailable.
        """


class ServedNar(Protocol):
    """An opened NAR. Its opener closes it once; bodies taken from it end with that."""

    @property
    def key(self) -> NarKey:
        """The name by which the client asked for the NAR."""

    @property
    def size(self) -> int | None:
        """Bytes behind the URL in all, if known by now.

        While they arrive, the size may be the word of an upstream, and change if that was wrong.
        """

    @property
    def outcome(self) -> Outcome:
        """How the cache came by it."""

    @property
    def upstream(self) -> str:
        """Name of the upstream it came or is coming from; empty if unknown."""

    async def known_size(self) -> int:
        """Wait until the size is known, perhaps for a download's end; `size` says it from then on.

        Raises Unavailable or Corrupt if the download fails.
        """

    async def final_size(self) -> int:
        """Wait until the size is certain; only a certain size may refuse a client.

        Raises Unavailable or Corrupt if the download fails.
        """

    async def location(self) -> str | None:
        """Return a URL at which the client finds the bytes; None if they are to be sent.

        Raises Unavailable if the store cannot be asked.
        """

    async def body(self, start: int = 0, stop: int | None = None) -> Body:
        """Bytes `start` to `stop` (exclusive, default the end), also while they are arriving.

        Call it before any header is sent: it fetches an object again that is missing or has the
        wrong size. Raises NotFound, Unavailable or Corrupt if that fails.
        """

    def reopener(self) -> Reopen | None:
        """Return a function that opens the whole file as often as `Cache.nar` would answer so.

        It is good until the function given to `Cache.watch_nars` is told of the NAR. A caller keeps
        it before its next await, or not at all. None if `nar` must be asked.
        """
        return None

    async def spoiled(self, error: Corrupt) -> bool:
        """Note the error of a body; say whether the NAR may be had if it is opened anew.

        Raises Unavailable if the catalog cannot be asked.
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

    :param parts: "ok", or what is wrong, by the name of the part (`database`, `storage`, ...).
    :param needed: the parts without which nothing can be served; others only degrade.
    :param ages: seconds since each part that was looked at was seen in its state.
    """

    parts: Mapping[str, str]
    needed: frozenset[str] = frozenset()
    ages: Mapping[str, float] = field(factory=dict)

    @property
    def is_ready(self) -> bool:
        """Whether every needed part is well."""
        return all(self.parts.get(part) == "ok" for part in self.needed)


class NarSource(Protocol):
    """NARs as the pages of NARs ask for them; see `Cache`."""

    async def key_of(self, digest: str, file_name: str) -> NarKey:
        """Return the name of a NAR that has an old name."""

    async def nar(self, key: NarKey, *, is_part: bool = False) -> ServedNar:
        """Open a NAR."""

    async def stat_nar(self, key: NarKey) -> tuple[int | None, Outcome]:
        """Say how `nar` would answer, and the size if it is known."""


class Cache(NarSource, Protocol):
    """The cache core as the web floor sees it."""

    @property
    def public_key(self) -> str:
        """The key that our signatures are made with, `name:base64`."""

    async def narinfo(self, digest: str, *, leads_on: bool = False) -> ServedNarInfo:
        """Find or fetch the narinfo of a store path's hash part (valid nix32).

        :param leads_on: whether a client asks that may ask for its references next, so that they
            may be fetched ahead.

        Raises NotFound, Unavailable or Corrupt if no upstream has a good one.
        """

    def watch(self, forgotten: Callable[[str], object]) -> None:
        """Call `forgotten` with each digest whose answer may be another from now on."""

    def repeated(self, digests: Collection[str]) -> None:
        """Take note that answers were given again, without asking `narinfo`."""

    def watch_nars(self, changed: Callable[[NarKey | None], object]) -> None:
        """Call `changed` with each NAR whose answer may be another from now on; None: with all."""

    def nars_repeated(self, keys: Collection[NarKey]) -> None:
        """Take note that NARs were sent again, without asking `nar`."""

    async def key_of(self, digest: str, file_name: str) -> NarKey:
        """Return the name of a NAR that has an old name, by the hash part of its store path.

        :param file_name: the old name, which begins with that hash part; see `old_names`.

        Raises NotFound also for another file of that NAR; else errors are those of `narinfo`.
        """

    async def nar(self, key: NarKey, *, is_part: bool = False) -> ServedNar:
        """Open a NAR, from the store or from a download that it starts or joins.

        :param is_part: whether only a part is wanted, by a client that may have the rest already.

        Raises NotFound, Unavailable or Corrupt if it cannot be had.
        """

    async def arriving_nar(self, key: NarKey) -> ArrivingNar:
        """Open a NAR that is being downloaded, for another process of this cache.

        Nothing is fetched for it. Raises NotFound if it is not arriving here; else errors are those
        of `nar`.
        """

    async def stat_nar(self, key: NarKey) -> tuple[int | None, Outcome]:
        """Say how `nar` would answer, and the size if it is known. Errors are those of `nar`."""

    async def readiness(self) -> Readiness:
        """Look at every part now, for less than a second; raises nothing."""
