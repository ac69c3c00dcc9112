"""The catalog: the known facts of narinfos and NARs, for requests."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Final, Protocol, Self

from attrs import evolve, frozen

from ncps.nix.hashes import Hash
from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import NarKey

CONTENT: Final = "ca"
"""The voucher of a narinfo whose store path was computed from its content address."""

UPLOAD: Final = "upload"
"""The voucher of a narinfo from a client that may write, after ncps has read its NAR."""


NEVER_ASKED_FOR: Final = datetime.fromtimestamp(0, UTC)
"""The last use of a NAR that was fetched ahead until a client asks for it.

Eviction removes it before all NARs that clients have used.
"""


@frozen(kw_only=True)
class NarRecord:
    """The record of the NAR behind one URL: its facts, its origin, and its stored bytes (D3).

    :param compression: as the narinfo advertises it (`none`, `xz`, ...).
    :param file_size: bytes of the file at the URL, if known; `file_hash` is their hash.
    :param nar_size: bytes of the uncompressed NAR, if known; `nar_hash` is its hash.
    :param upstream: base URL of the upstream that sent it or has it, without credentials; empty if
        unknown.
    :param origin_url: the URL field of that upstream's narinfo, with its query.
    :param encoding: the compression of the stored bytes; differs from `compression` only in a store
        of another program.
    :param stored_size: size of the stored object; None while nothing is stored.
    :param stored_tag: tag of the stored object; empty if not known yet.
    :param stored_at: when the bytes were published; None while nothing is stored.
    :param verified_at: when NarHash was last compared and right; None if never.
    :param last_used_at: when a client last asked for it; None if unknown. See `NEVER_ASKED_FOR`.
    :param uploaded_at: when a client uploaded the bytes; None if no client did.
    :param made_from: file name of the NAR from which ncps made this one; then `upstream` and
        `origin_url` are those of that NAR (see `ncps.ports.twins`). Empty if ncps did not make it.
    :param made_level: the level of its compression; 0 if ncps did not make it.
    :param recompressed_at: when ncps made another file from it, or decided to make none.
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
        """A name that a file and all files made from it have in common."""
        return self.made_from or self.key.file_name

    @property
    def is_stored(self) -> bool:
        """Whether the bytes are published."""
        return self.stored_at is not None

    @property
    def was_stored(self) -> bool:
        """Whether the bytes are or were stored: then size and hash of the file are theirs."""
        return self.is_stored or self.encoding != ""

    def without_bytes(self) -> Self:
        """Return the record without stored bytes; the known facts about them stay."""
        return evolve(self, stored_at=None, stored_size=None, stored_tag="", verified_at=None)


WRONG_S: Final = 30 * 24 * 3600.0
"""Seconds for which the catalog remembers a wrong file."""

WRONG_ENTRIES: Final = 10_000
"""Wrong files that the catalog remembers, at most; it forgets the oldest ones."""


LONGEST_AMONG: Final = 64 * 1024
"""Characters of a narinfo that is read together with others, at most."""


@frozen(kw_only=True)
class NarInfoEntry:
    """A narinfo as it is served, and its origin.

    :param digest: hash part of the store path, 32 characters.
    :param narinfo: rewritten and signed, ready to render.
    :param upstream: base URL of the upstream it came from, without credentials.
    :param upstream_url: the URL field in that upstream's narinfo.
    :param verified_by: the public key that vouched for it (`name:base64`), or `CONTENT` for its
        content address, or `UPLOAD` for the client that uploaded it; empty if nothing vouched.
    :param signed_by: the public key of ncps's own signature in it; empty: it has none.
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
    """The counts for metrics."""

    narinfos: int
    nars_stored: int
    bytes_stored: int


class Catalog(Protocol):
    """The index that requests use; each method is atomic.

    Methods raise Unavailable if the database is away.
    """

    async def narinfo(self, digest: str) -> tuple[NarInfoEntry, NarRecord] | None:
        """Return a narinfo and the record of its NAR, or None."""

    async def narinfos_among(
        self, digests: Collection[str]
    ) -> dict[str, tuple[NarInfoEntry, NarRecord] | None]:
        """Return the existing ones of many narinfos, each with the record of its NAR.

        None stands for a narinfo of more than `LONGEST_AMONG` characters; `narinfo` returns it.
        Each batch of them is one transaction.
        """

    async def nar(self, key: NarKey) -> NarRecord | None:
        """Return the record of a NAR, or None."""

    async def stored_file(self, file_hash: Hash, extension: str) -> NarRecord | None:
        """Return a stored NAR whose file has this hash, and whose key has this extension."""

    async def narinfos_of(self, key: NarKey) -> list[NarInfoEntry]:
        """Return all narinfos whose URL is this key."""

    async def narinfos_alike(self, key: NarKey) -> list[NarInfoEntry]:
        """Return some narinfos, of any URL, whose NAR has the same NarHash. May be slow."""

    async def add_narinfo(
        self, entry: NarInfoEntry, nar: NarRecord, *, is_settled: bool = False
    ) -> None:
        """Insert or replace a narinfo, and insert or complete the row of its NAR.

        A new row gets all facts of `nar`. An existing row changes as follows:

        - stored: its unknown facts (None or empty) are filled in, if the stored bytes are known to
          have the NarHash of `nar`;
        - stored before, but not now: it gets the origin of `nar`;
        - never stored: it gets the origin and the advertised facts of `nar`;
        - an original of a stored twin: it is due for recompression again, so that this narinfo will
          name the twin.

        References and signatures are sets. Raises Blocked (see `ncps.ports.removals`), and writes
        nothing, if the path or its NAR is blocked.

        :param is_settled: whether it survives a loss of power on return, as after `settle`.
        """

    async def add_new_narinfo(
        self, entry: NarInfoEntry, nar: NarRecord, other: NarKey | None = None
    ) -> bool:
        """Record a narinfo like `add_narinfo`, but only if neither path nor NAR has a row.

        Return whether it was recorded. False, and nothing is written, if the path has a narinfo, or
        a NAR has the key of `nar` or the key `other`.
        """

    async def mark_stored(
        self, nar: NarRecord, fence: int = 0, *, is_settled: bool = False
    ) -> list[NarInfoEntry]:
        """Insert or replace a NAR's row after its bytes were published; return its narinfos.

        Narinfos of this key get FileHash and FileSize from the record, unless their compression is
        none. Raises Blocked, and writes nothing, if the NAR is blocked.

        :param fence: of the lease under which the bytes were fetched. Raises Conflict, and writes
            nothing, if bytes were recorded under a later lease. 0 for no lease: always write, and
            keep the fence in the row.
        :param is_settled: whether it survives a loss of power on return, as after `settle`.
        """

    async def mark_missing(self, key: NarKey) -> None:
        """Record that the bytes are gone: stored_at, stored_size, verified_at become None."""

    async def mark_verified(self, nar: NarRecord) -> bool:
        """Record facts that were computed from stored bytes; False if they were replaced since.

        :param nar: its `stored_at` is that of the bytes that were read; compression, encoding,
            hashes, sizes, `stored_tag` and `verified_at` are the computed facts.
        """

    async def unverified(self, limit: int, compressions: Collection[str]) -> list[NarRecord]:
        """Return stored NARs that were never verified, oldest first.

        Uploads without a known NarHash are omitted: the upload of their narinfo verifies them.

        :param compressions: only NARs stored in one of these, or in an unknown one.
        """

    async def restate(self, nar: NarRecord) -> None:
        """Replace FileHash, FileSize and origin of a NAR's row by those of `nar`.

        It does nothing if bytes are or were stored, or if there is no row.
        """

    async def note_wrong(self, nar_hash: Hash, file_hash: Hash, at: datetime) -> None:
        """Record that a file does not contain the NAR of its narinfo; see `WRONG_S`."""

    async def is_wrong(self, nar_hash: Hash, file_hash: Hash, now: datetime) -> bool:
        """Return whether `note_wrong` recorded this within the last `WRONG_S` seconds."""

    async def forget_narinfo(self, digest: str) -> bool:
        """Delete a narinfo (its NAR's row stays); False if absent."""

    async def forget_nar(self, key: NarKey) -> bool:
        """Delete a NAR's row and every narinfo of it; False if absent."""

    async def touch(
        self, narinfos: Mapping[str, datetime], nars: Mapping[NarKey, datetime]
    ) -> None:
        """Set many times of last use; ignore unknown entries and earlier times."""

    async def settle(self) -> None:
        """Sync: all earlier writes survive a loss of power on return."""

    async def totals(self) -> Totals:
        """Count narinfos and stored NARs."""

    async def time(self) -> datetime:
        """Return the time by the clock of the database, to the second."""
