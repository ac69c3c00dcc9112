"""The verbs of the cache core, and its answers: all that the web layer knows of it.

The verbs raise the errors of `ncps.errors`: NotFound means "not available through this cache
now"; each other error means that the cache cannot tell. An answer is complete or it is an error.
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
    """How the cache obtained an answer; clients see the value."""

    HIT = "hit"  # kept here
    MISS = "miss"  # fetched for this request
    COALESCED = "coalesced"  # joined a fetch that ran already
    NEGATIVE = "negative"  # an absence that is still remembered
    UNSURE = "unsure"  # an absence, though some upstreams could not be asked
    AWAY = "away"  # an absence because no upstream could be asked
    RING = "ring"  # an absence because this cache itself began the question


class NarStat(NamedTuple):
    """The facts of a NAR without its bytes.

    :param size: of the file; None if it is not known.
    :param outcome: that the bytes would have.
    """

    size: int | None
    outcome: Outcome


class Absent(NotFound):
    """A NotFound with its reason: MISS, NEGATIVE, UNSURE, AWAY or RING.

    Only MISS and NEGATIVE are certain.
    """

    def __init__(self, message: str, *, outcome: Outcome) -> None:
        super().__init__(message, is_certain=outcome in {Outcome.MISS, Outcome.NEGATIVE})
        self.outcome = outcome


class Resized(Corrupt):
    """A NAR has another size than it seemed to have when its body was opened.

    A caller that has sent the old size to no client may open the body again.
    """


class WrongBytesSent(Corrupt):
    """A body has ended early, because it had given bytes that were found wrong."""


class ServedNarInfo(NamedTuple):
    """A narinfo for a client: a plain tuple, because each answer makes one.

    :param text: rendered and signed.
    :param tag: its entity tag, as in ETag.
    :param upstream: name of the upstream it came from; empty if unknown.
    :param nar: the record of the NAR that it names.
    :param may_repeat: returns whether `narinfo` would give this answer again now. A caller may use
        it until the function given to `Cache.watch` is called with the digest. A caller that keeps
        it must do so before its next await. None if each request must call `narinfo`.
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
    """The result of an upload; clients see the value."""

    CREATED = "created"  # there was none before
    SAME = "same"  # it was known, perhaps with fewer signatures
    REPLACED = "replaced"  # it replaced another one with a weaker voucher
    LEFT = "left"  # another one was known, and stays


class RealisationCache(Protocol):
    """The verbs for realisations."""

    async def get(self, key: RealisationKey, *, is_local: bool = False) -> ServedRealisation:
        """Return a realisation. Raises NotFound (Absent), Unavailable or Corrupt.

        :param is_local: True asks no upstream.
        """

    async def accept(
        self, key: RealisationKey, text: bytes, principal: Principal
    ) -> RealisationUpload:
        """Keep an upload durably.

        Raises Malformed if the text is none, Refused if the client may not write the path or
        nothing vouches for the upload, Conflict if another realisation has a stronger voucher,
        StorageFull or Unavailable if nothing can be written.
        """

    async def forget(self, key: RealisationKey, principal: Principal) -> bool:
        """Drop a realisation; return False if there is none.

        Raises Refused if the client may not delete the path that it names, Unavailable if the
        catalog or the store fails now.
        """


class ServedNar(Protocol):
    """An opened NAR. Its opener closes it once; that ends the bodies made from it."""

    @property
    def key(self) -> NarKey:
        """The name by which the client asked for the NAR."""

    @property
    def size(self) -> int | None:
        """Bytes of the file behind the URL, if known by now.

        While the file arrives, only an upstream may have said this size. If it was wrong, the size
        changes.
        """

    @property
    def outcome(self) -> Outcome:
        """How the cache obtained it."""

    @property
    def upstream(self) -> str:
        """Name of the upstream that sent or sends it; empty if unknown."""

    async def known_size(self) -> int:
        """Wait until the size is known, perhaps until the download ends; then `size` has it, too.

        Raises Unavailable or Corrupt if the download fails.
        """

    async def final_size(self) -> int:
        """Wait until the size is certain. Only a certain size may be the reason to refuse a client.

        Raises Unavailable or Corrupt if the download fails.
        """

    async def location(self) -> str | None:
        """Return another URL of the bytes for the client; None if the cache must send them.

        Raises Unavailable if the store cannot be asked.
        """

    async def body(self, start: int = 0, stop: int | None = None) -> Body:
        """Return the bytes `start` to `stop` (exclusive, default the end), also while they arrive.

        Call it before sending any header: it fetches an object again that is missing or has the
        wrong size. Raises NotFound, Unavailable or Corrupt if that fails.
        """

    def reopener(self) -> Reopen | None:
        """Return a function that opens the whole file again, without a call of `Cache.nar`.

        A caller may use it until the function given to `Cache.watch_nars` is called with the NAR. A
        caller that keeps it must do so before its next await. None if each request must call
        `Cache.nar`.
        """
        return None

    async def spoiled(self, error: Corrupt) -> bool:
        """Note the error of a body; return whether opening the NAR again may succeed.

        Raises Unavailable if the catalog cannot be asked.
        """

    def close(self) -> None:
        """Release it; its download goes on without readers."""


class ArrivingNar(ServedNar, Protocol):
    """A NAR on its way into the store."""

    @property
    def file(self) -> str:
        """Name of the file that arrives: files of one name have the same bytes."""


@frozen(kw_only=True)
class Readiness:
    """Whether the cache can serve.

    :param parts: "ok" or the fault of each part, by its name (`database`, `storage`, ...).
    :param needed: the parts without which nothing can be served.
    :param ages: seconds since the state of each checked part was seen.
    """

    parts: Mapping[str, str]
    needed: frozenset[str] = frozenset()
    ages: Mapping[str, float] = field(factory=dict)

    @property
    def is_ready(self) -> bool:
        """Whether each needed part works."""
        return all(self.parts.get(part) == "ok" for part in self.needed)


class NarSource(Protocol):
    """NARs as the pages of NARs ask for them; see `Cache`."""

    async def key_of(self, digest: str, file_name: str) -> NarKey:
        """Return the present name of a NAR that has an old name."""

    async def nar(self, key: NarKey, *, is_part: bool = False) -> ServedNar:
        """Open a NAR."""

    async def stat_nar(self, key: NarKey) -> NarStat:
        """Return the facts of a NAR that `nar` would open. Raises as `nar`."""


class Cache(NarSource, Protocol):
    """The cache core as the web layer sees it."""

    @property
    def public_key(self) -> str:
        """The public key of our signatures, `name:base64`."""

    async def narinfo(self, digest: str, *, leads_on: bool = False) -> ServedNarInfo:
        """Find or fetch the narinfo of a store path's hash part (valid nix32).

        Raises NotFound, Unavailable or Corrupt if no upstream has a good one.

        :param leads_on: whether the cache may fetch its references ahead, because the client may
            ask for them next.
        """

    def watch(self, forgotten: Callable[[str], object]) -> None:
        """Have `forgotten` called with each digest whose answer may have changed."""

    def repeated(self, digests: Collection[str]) -> None:
        """Note that answers were given again without a call of `narinfo`."""

    def watch_nars(self, changed: Callable[[NarKey | None], object]) -> None:
        """Have `changed` called with each NAR whose answer may have changed; None for all NARs."""

    def nars_repeated(self, keys: Collection[NarKey]) -> None:
        """Note that NARs were sent again without a call of `nar`."""

    def nar_sent(self, busy_s: float, full_s: float) -> None:
        """Note how a large NAR was sent; see `ncps.aio.sending_times`."""

    async def key_of(self, digest: str, file_name: str) -> NarKey:
        """Return the present name of a NAR that has an old name, by its store path's hash part.

        Raises NotFound also if the old name is that of another file of the NAR, else as `narinfo`.

        :param file_name: the old name, which begins with that hash part; see `old_names`.
        """

    async def nar(self, key: NarKey, *, is_part: bool = False) -> ServedNar:
        """Open a NAR, from the store or from a download that it starts or joins.

        Raises NotFound, Unavailable or Corrupt if neither the store nor an upstream has it.

        :param is_part: whether the client wants a part only, and may have the rest already.
        """

    async def arriving_nar(self, key: NarKey) -> ArrivingNar:
        """Open a NAR that is being downloaded, for another process of this cache.

        Starts no download. Raises NotFound if the NAR is not arriving here, else as `nar`.
        """

    async def stat_nar(self, key: NarKey) -> NarStat:
        """Return the facts of a NAR that `nar` would open. Raises as `nar`."""

    async def readiness(self) -> Readiness:
        """Check each part now, for less than a second. Raises nothing."""
