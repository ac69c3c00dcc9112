"""The catalog: the known facts of narinfos and NARs, as requests ask for them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Final, Protocol, Self

from attrs import evolve, frozen

from ncps.nix.hashes import Hash
from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import NarKey

CONTENT: Final = "ca"
"""Vouches for a narinfo whose store path was computed from its content address."""

UPLOAD: Final = "upload"
"""Vouches for a narinfo that a client with leave to write uploaded, and whose NAR was read."""


NEVER_ASKED_FOR: Final = datetime.fromtimestamp(0, UTC)
"""The last use of a NAR that was fetched ahead, as long as no client asks for it: it goes before
all that somebody has used."""


@frozen(kw_only=True)
class NarRecord:
    """The record of how the bytes behind one NAR URL are kept (D3).

    :param compression: as the narinfo advertises it (`none`, `xz`, ...).
    :param file_size: size of the bytes the URL stands for, if known; `file_hash` is their hash.
    :param nar_size: size of the uncompressed NAR, if known; `nar_hash` is its hash.
    :param upstream: base URL of the upstream it came or would come from, without credentials;
        empty if unknown.
    :param origin_url: the URL field of that upstream's narinfo, query included.
    :param encoding: how the stored bytes are compressed; differs from `compression` only in
        trees taken over from elsewhere.
    :param stored_size: size of the stored object; None while nothing is stored.
    :param stored_tag: tag of the stored object; empty if the store was not asked for it yet.
    :param stored_at: when the bytes were published; None while nothing is stored.
    :param verified_at: when NarHash was last found right; None if never.
    :param last_used_at: when a client last asked for it; None if that is not known, and
        `NEVER_ASKED_FOR`.
    :param uploaded_at: when a client uploaded the bytes; None if they came from elsewhere.
    :param made_from: file name of the NAR that ncps has made this one from, of which `upstream` and
        `origin_url` tell then (see `ncps.ports.twins`); empty if it came as it is.
    :param made_level: the level of its compression; 0 if it came as it is.
    :param recompressed_at: when another file was made from it, or none was worth while.
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
    stored_tag: str = ""
    stored_at: datetime | None = None
    verified_at: datetime | None = None
    last_used_at: datetime | None = None
    uploaded_at: datetime | None = None
    made_from: str = ""
    made_level: int = 0
    recompressed_at: datetime | None = None

    @property
    def is_only_copy(self) -> bool:
        """Whether a client uploaded it, and no upstream is known to have it."""
        return self.uploaded_at is not None and not self.upstream

    @property
    def family(self) -> str:
        """The same for a file and those that ncps has made from it."""
        return self.made_from or self.key.file_name

    @property
    def is_stored(self) -> bool:
        """Whether the bytes are published."""
        return self.stored_at is not None

    @property
    def was_stored(self) -> bool:
        """Whether they are or once were: then size and hash of the file are those of the bytes."""
        return self.is_stored or self.encoding != ""

    def without_bytes(self) -> Self:
        """The record once its bytes are gone; what is known of them stays."""
        return evolve(self, stored_at=None, stored_size=None, stored_tag="", verified_at=None)


WRONG_S: Final = 30 * 24 * 3600.0
"""Seconds for which a file that was found wrong stays known as such."""

WRONG_ENTRIES: Final = 10_000
"""Most of them that are remembered; beyond, those found first are forgotten."""


LONGEST_AMONG: Final = 64 * 1024
"""Characters of a narinfo that is read together with others."""


@frozen(kw_only=True)
class NarInfoEntry:
    """A narinfo as it is served, and where it came from.

    :param digest: hash part of the store path, 32 characters.
    :param narinfo: rewritten and signed, ready to render.
    :param upstream: base URL of the upstream it came from, without credentials.
    :param upstream_url: the URL field as that upstream gave it.
    :param verified_by: the public key that vouched for it (`name:base64`), or `CONTENT` for the
        content address in its store path, or `UPLOAD` for the client that uploaded it; empty if
        nothing did.
    :param signed_by: the public key of our signature in it; empty: it has none.
    """

    digest: str
    narinfo: NarInfo
    upstream: str
    upstream_url: str
    verified_by: str
    fetched_at: datetime
    last_used_at: datetime | None = None
    signed_by: str = ""

    @property
    def is_verified(self) -> bool:
        """Whether a key, its content address or an upload vouched for it."""
        return self.verified_by != ""


@frozen
class Totals:
    """Counts for metrics."""

    narinfos: int
    nars_stored: int
    bytes_stored: int


class Catalog(Protocol):
    """The index that requests use; each method happens as a whole or not at all.

    Raises Unavailable if the database is away.
    """

    async def narinfo(self, digest: str) -> tuple[NarInfoEntry, NarRecord] | None:
        """Return a narinfo and the record of its NAR, or None."""

    async def narinfos_among(
        self, digests: Collection[str]
    ) -> dict[str, tuple[NarInfoEntry, NarRecord] | None]:
        """Return those of many narinfos that are there, each with the record of its NAR.

        None stands for one of more than `LONGEST_AMONG` characters, which `narinfo` returns. They
        are read in batches, each a transaction of its own.
        """

    async def nar(self, key: NarKey) -> NarRecord | None:
        """Return the record of a NAR, or None."""

    async def stored_file(self, file_hash: Hash, extension: str) -> NarRecord | None:
        """Return a stored NAR whose file has this hash, and whose key has this extension."""

    async def narinfos_of(self, key: NarKey) -> list[NarInfoEntry]:
        """Return every narinfo whose URL is this key."""

    async def narinfos_alike(self, key: NarKey) -> list[NarInfoEntry]:
        """Return some narinfos, of any URL, whose NAR has the same NarHash. May be slow."""

    async def add_narinfo(
        self, entry: NarInfoEntry, nar: NarRecord, *, is_settled: bool = False
    ) -> None:
        """Insert or replace a narinfo and see to its NAR's row.

        A new NAR row takes all of `nar`. Of an existing one that is stored only what is unknown
        in it (None or empty) is filled in, and that only if the stored bytes are known to have
        the NarHash of `nar`; one that was stored once takes the origin from `nar`, one that never
        was the advertised facts, too. One from which a stored file was made wants one again: the
        narinfo is to name it, too. References and signatures are sets. Raises Blocked (see
        `ncps.ports.removals`), and writes nothing, if the path or its NAR is blocked.

        :param is_settled: whether it survives a loss of power on return, as after `settle`.
        """

    async def mark_stored(
        self, nar: NarRecord, fence: int = 0, *, is_settled: bool = False
    ) -> list[NarInfoEntry]:
        """Insert or replace a NAR's row after its bytes were published; return its narinfos.

        Narinfos of this key get FileHash and FileSize from the record, unless their compression is
        none. Raises Blocked, and writes nothing, if the NAR is blocked.

        :param fence: of the lease under which they were fetched; Conflict, and nothing is written,
            if bytes were recorded under a later one. 0 for no lease, which always writes and
            leaves the number of the last lease.
        :param is_settled: whether it survives a loss of power on return, as after `settle`.
        """

    async def mark_missing(self, key: NarKey) -> None:
        """Note that the bytes are gone: stored_at, stored_size, verified_at become None."""

    async def mark_verified(self, nar: NarRecord) -> bool:
        """Note facts that were computed from stored bytes; False if others were stored meanwhile.

        :param nar: its `stored_at` says which bytes were read; compression, encoding, hashes,
            sizes, `stored_tag` and `verified_at` are the facts that were found.
        """

    async def unverified(self, limit: int, compressions: Collection[str]) -> list[NarRecord]:
        """Return stored NARs that were never read as NARs, oldest first.

        Uploads of which no NarHash is known are left out: they are read for their narinfo.

        :param compressions: only NARs kept in one of these, or of which that is not known.
        """

    async def restate(self, nar: NarRecord) -> None:
        """Replace FileHash, FileSize and origin of a NAR's row by those of `nar`.

        Nothing is done where bytes are or were stored, or where there is no row.
        """

    async def note_wrong(self, nar_hash: Hash, file_hash: Hash, at: datetime) -> None:
        """Remember that a file does not hold the NAR that a narinfo said; see `WRONG_S`."""

    async def is_wrong(self, nar_hash: Hash, file_hash: Hash, now: datetime) -> bool:
        """Whether that was noted, and not too long ago."""

    async def forget_narinfo(self, digest: str) -> bool:
        """Delete a narinfo (its NAR's row stays); False if absent."""

    async def forget_nar(self, key: NarKey) -> bool:
        """Delete a NAR's row and every narinfo of it; False if absent."""

    async def touch(
        self, narinfos: Mapping[str, datetime], nars: Mapping[NarKey, datetime]
    ) -> None:
        """Set times of last use, many at once; unknown ones are ignored; never backwards."""

    async def settle(self) -> None:
        """Make everything that was written so far survive a loss of power."""

    async def totals(self) -> Totals:
        """Count what is there."""

    async def time(self) -> datetime:
        """Return the time by the clock of the database, to the second."""
