"""The ports: what the cache core needs of the world, and the values that cross the border.

Each port is a Protocol with one contract test class under `tests/contract`, run against a fake
and against every real adapter. All methods run on the reactor's thread and return quickly;
adapters that block use `ncps.workers` inside. Adapters raise the errors of `ncps.errors` only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from attrs import frozen

from ncps.nix.cacheinfo import CacheInfo
from ncps.nix.hashes import Hash
from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import NarKey


@frozen
class Segment:
    """A run of bytes of an open local file, fit for `os.sendfile`; the Body owns the descriptor."""

    fd: int
    offset: int
    length: int


class Body(Protocol):
    """Bytes being pulled, in order, once.

    Whoever got the Body closes it, also after an error; `close` is idempotent, may be called
    between chunks, and gives up the source. Cancelling the await of a chunk is allowed and must
    be followed by `close`. A source that fails raises `Unavailable` or `Corrupt` out of the
    iteration: a Body that ends without raising has delivered everything.
    """

    @property
    def size(self) -> int | None:
        """Bytes in all, counted from the Body's first byte, if known before the end."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    def segment(self) -> Segment | None:
        """The same bytes as a piece of a local file, if they lie in one; only before iterating."""

    def close(self) -> None: ...


@frozen(kw_only=True)
class Stat:
    """What a store says of an object it has."""

    key: NarKey
    size: int
    modified: datetime


@frozen(kw_only=True)
class Spooled:
    """A finished file on local disk that a store may take over (rename) or copy.

    :param sha256: hash of the file's bytes as they lie there.
    """

    path: Path
    size: int
    sha256: Hash


class NarStore(Protocol):
    """Keeps NAR files under their keys. Nothing partial is ever seen under a key."""

    async def stat(self, key: NarKey) -> Stat | None:
        """Return facts of the object; None means surely absent. Unavailable: could not tell."""

    async def open(
        self, key: NarKey, start: int = 0, stop: int | None = None, *, size: int | None = None
    ) -> Body:
        """Open bytes `start` to `stop` (exclusive, default the end). NotFound, Unavailable.

        :param size: what the object's size should be; Corrupt if it is another.
        """

    async def publish(self, key: NarKey, source: Spooled) -> Stat:
        """Make the spooled file the object: atomic, durable on return, idempotent.

        Consumes the source file. An object that is there already with the same size stays;
        one with another size is replaced (the caller has verified the source). StorageFull,
        Unavailable.
        """

    async def delete(self, key: NarKey) -> bool:
        """Remove the object; False if it was absent. Unavailable."""

    async def quarantine(self, key: NarKey) -> bool:
        """Set the object aside where no request finds it but an operator can; False if absent."""

    def walk(self) -> AsyncIterator[Stat]:
        """Every object, in no order; objects that come or go meanwhile may or may not appear."""


class NarInfoStore(Protocol):
    """Keeps beside each published NAR the narinfo as verified (text, D13), by store path hash."""

    async def put(self, digest: str, text: bytes) -> None:
        """Write or replace, atomic and durable on return. StorageFull, Unavailable."""

    async def get(self, digest: str) -> bytes | None:
        """Return the text; None means surely absent. Unavailable."""

    async def delete(self, digest: str) -> bool:
        """Remove it; False if it was absent. Unavailable."""

    def walk(self) -> AsyncIterator[str]:
        """Every digest, in no order."""


class ConfigStore(Protocol):
    """Keeps the signing key and few small secrets, each created exactly once."""

    async def get(self, name: str) -> bytes | None:
        """Return the value; None means surely absent. Unavailable."""

    async def create(self, name: str, value: bytes) -> bytes:
        """Create `name` unless it exists; return the value that is there afterwards.

        Of any number of concurrent creators, in any number of processes, one wins and all
        return its value. Durable on return. StorageFull, Unavailable.
        """


@frozen(kw_only=True)
class NarRecord:
    """How the bytes behind one NAR URL are kept (D3); every path reads this one record.

    :param compression: as the narinfo advertises it (`none`, `xz`, ...).
    :param file_size: size of the bytes the URL stands for, if known; likewise `file_hash`.
    :param nar_size: size of the uncompressed NAR, if known; likewise `nar_hash`.
    :param upstream: base URL of the upstream it came or would come from, without credentials;
        empty if unknown.
    :param origin_url: the URL field of that upstream's narinfo, query included.
    :param encoding: how the stored bytes are compressed; differs from `compression` only in
        trees taken over from elsewhere.
    :param stored_size: size of the stored object; None while nothing is stored.
    :param stored_at: when the bytes were published; None while nothing is stored.
    :param verified_at: when NarHash was last found right; None if never.
    """

    key: NarKey
    compression: str
    file_size: int | None = None
    file_hash: Hash | None = None
    nar_size: int | None = None
    nar_hash: Hash | None = None
    upstream: str = ""
    origin_url: str = ""
    encoding: str = ""
    stored_size: int | None = None
    stored_at: datetime | None = None
    verified_at: datetime | None = None
    last_used_at: datetime | None = None

    @property
    def is_stored(self) -> bool:
        """Whether the bytes are published."""
        return self.stored_at is not None


@frozen(kw_only=True)
class NarInfoEntry:
    """A narinfo as it is served, and where it came from.

    :param digest: hash part of the store path, 32 characters.
    :param narinfo: rewritten and signed, ready to render.
    :param upstream: base URL of the upstream it came from, without credentials.
    :param upstream_url: the URL field as that upstream gave it.
    :param verified: whether a configured key vouched for it.
    """

    digest: str
    narinfo: NarInfo
    upstream: str
    upstream_url: str
    verified: bool
    fetched_at: datetime
    last_used_at: datetime | None = None


@frozen
class Totals:
    """Counts for metrics and the status page."""

    narinfos: int
    nars_stored: int
    bytes_stored: int


class Catalog(Protocol):
    """The index that requests use; each method is one transaction. Errors: Unavailable."""

    async def narinfo(self, digest: str) -> tuple[NarInfoEntry, NarRecord] | None:
        """Return a narinfo and the record of its NAR, or None."""

    async def nar(self, key: NarKey) -> NarRecord | None:
        """Return the record of a NAR, or None."""

    async def narinfos_of(self, key: NarKey) -> list[NarInfoEntry]:
        """Return every narinfo whose URL is this key."""

    async def add_narinfo(self, entry: NarInfoEntry, nar: NarRecord) -> None:
        """Insert or replace a narinfo and see to its NAR's row.

        A new NAR row takes all of `nar`. Of an existing one that is stored only what is unknown
        in it (None or empty) is filled in; one that is not stored takes the advertised facts and
        the origin from `nar`. References and signatures are sets.
        """

    async def mark_stored(self, nar: NarRecord, fence: int = 0) -> None:
        """Insert or replace a NAR's row after its bytes were published.

        Narinfos of this key that lack FileHash or FileSize get them from the record, unless
        their compression is none.

        :param fence: of the lease under which they were fetched; Conflict, and nothing is written,
            if bytes were recorded under a later one. 0 for no lease, which always writes and
            leaves the number of the last lease.
        """

    async def mark_missing(self, key: NarKey) -> None:
        """Note that the bytes are gone: stored_at, stored_size, verified_at become None."""

    async def mark_verified(self, key: NarKey, at: datetime) -> None:
        """Note that the stored bytes were found to have the right NarHash."""

    async def unverified(self, limit: int, compressions: Collection[str]) -> list[NarRecord]:
        """Return stored NARs with a known NarHash never checked, oldest first.

        :param compressions: only NARs kept in one of these.
        """

    async def forget_narinfo(self, digest: str) -> bool:
        """Delete a narinfo (its NAR's row stays); False if absent."""

    async def forget_nar(self, key: NarKey) -> bool:
        """Delete a NAR's row and every narinfo of it; False if absent."""

    async def touch(
        self, narinfos: Mapping[str, datetime], nars: Mapping[NarKey, datetime]
    ) -> None:
        """Set times of last use, many at once; unknown ones are ignored; never backwards."""

    async def totals(self) -> Totals:
        """Count what is there."""


class Lease(Protocol):
    """A held lease; releasing twice is harmless, and a release never fails."""

    @property
    def is_lost(self) -> bool:
        """Whether somebody else may hold it now: the guarded work must not be committed."""

    @property
    def fence(self) -> int:
        """Number of this grant, larger than that of every earlier grant of the same name.

        Written with what the lease guards, it keeps a holder that lost its lease without noticing
        from overwriting its successor's work. 0 where one process is alone and it means nothing.
        """

    async def release(self) -> None: ...


class Leases(Protocol):
    """Mutual exclusion by name, fair within a process, not re-entrant.

    Each object is made with the `address` at which its process can be reached by the others; it
    is written down with every lease, so that they may find who is at work.
    """

    def hold(self, name: str) -> AbstractAsyncContextManager[Lease]:
        """Wait for the lease (cancellable) and hold it. Unavailable if leases cannot be had."""

    async def try_hold(self, name: str) -> Lease | None:
        """Take the lease if it is free; None if somebody holds it. Unavailable."""

    async def holder(self, name: str) -> str:
        """Return the address of who holds it now; empty: nobody, or it told none. Unavailable.

        May be out of date when it arrives; good for finding somebody, never for deciding.
        """


NoticeKind = Literal["narinfo", "nar", "absent", "gap"]


@frozen
class Notice:
    """What one replica tells the others, so that they forget what is no longer so.

    :param kind: `narinfo`: the narinfo of a digest was stored, replaced or forgotten; `nar`: the
        bytes or the record of a NAR changed; `absent`: a digest or NAR that was absent is so no
        more; `gap`: notices may have been missed, all that is remembered is in doubt.
    :param name: digest or NAR file name; empty for `gap`.
    """

    kind: NoticeKind
    name: str = ""


class Notices(Protocol):
    """What replicas tell each other, best effort: nothing may depend on an arrival.

    A notice reaches every other object on the same line at most once, and may reach none. After a
    gap (a connection that was lost) subscribers are told `Notice("gap")`.
    """

    async def publish(self, notice: Notice) -> None:
        """Tell the others; never fails, and never waits long. A `gap` is not published."""

    def subscribe(self, told: Callable[[Notice], None]) -> None:
        """Call `told` on the reactor's thread with each notice from now on; it must be quick."""


class UpstreamBody(Body, Protocol):
    """A NAR's bytes as an upstream sends them, already freed of any Content-Encoding."""

    @property
    def start(self) -> int:
        """Offset of the first byte; 0 where the upstream ignored the range asked for."""

    @property
    def total(self) -> int | None:
        """Size of the whole object, if the upstream said so."""


class Upstream(Protocol):
    """One binary cache to fetch from."""

    @property
    def name(self) -> str:
        """Short and unique, for logs and metrics: host, port and path; no credentials."""

    @property
    def base_url(self) -> str:
        """Base URL without credentials and without query."""

    @property
    def priority(self) -> int:
        """Lower is asked first."""

    async def narinfo(self, digest: str) -> NarInfo:
        """Fetch and parse. NotFound: surely absent there. Unavailable, Corrupt: cannot tell."""

    async def open_nar(
        self, url: str, *, offset: int = 0, allow_encoding: bool = False
    ) -> UpstreamBody:
        """Open a NAR by the URL field of that upstream's narinfo (relative or absolute).

        Returns once the headers have arrived. NotFound, Unavailable, Corrupt.

        :param offset: first byte wanted; see `UpstreamBody.start` for what came.
        :param allow_encoding: whether a Content-Encoding on the wire is welcome.
        """

    async def stat_nar(self, url: str) -> int | None:
        """Ask for a NAR's size without its bytes; None: it is there, of unknown size.

        NotFound, Unavailable, Corrupt.
        """

    async def cache_info(self) -> CacheInfo:
        """Fetch nix-cache-info. NotFound, Unavailable, Corrupt."""


class Peers(Protocol):
    """The other processes of this cache, each at the address it holds its leases under.

    Nothing is fetched for a peer: it follows what is arriving anyway.
    """

    async def find_nar(self, address: str, key: NarKey) -> str:
        """Say which file of a NAR is arriving there; files of one name have the same bytes.

        NotFound: none is. Unavailable, Corrupt: cannot tell.
        """

    async def open_nar(self, address: str, key: NarKey, *, offset: int = 0) -> UpstreamBody:
        """Follow a NAR that is arriving there, from this byte on. Errors as for `find_nar`.

        A Body that ends without raising was found right there, to its last byte.
        """
