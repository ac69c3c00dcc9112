"""Record: finds narinfos in memory and catalog, decides whether to show them, records new ones.

A narinfo is shown only while a client can get its NAR: the bytes are stored or arriving, or the
upstream is not known to be away (P1). A verified narinfo is recorded in the catalog, and kept as a
sidecar beside its NAR.

A narinfo is recorded with a name for its NAR that belongs to no other file. No key signs a
narinfo's facts about the file. So stored bytes get a conventional name only after a reading has
found that they have its hash, and this NAR inside. Otherwise the NAR gets the first opaque name
that does not stand for another file of it.

A lost catalog is rebuilt from the sidecars of the published NARs (D13). A sidecar has the text of
the upstream's narinfo, with its signatures and its original URL. One line of our own names the
upstream, or says that a client uploaded the narinfo. Nix ignores lines that it does not know, so
the sidecar is a valid narinfo.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial

from attrs import evolve
from twisted.logger import Logger

from ncps.aio.clocks import wall_of
from ncps.aio.guess import is_unwanted
from ncps.ask.choose import Upstreams
from ncps.cache.narinfo.naming import agreeing, named
from ncps.cache.narinfo.state import CacheState, Invalidation, KnownNarInfo, SymbolNews, known
from ncps.cache.narinfo.verify import NarInfoVerifier, Vetted
from ncps.cache.world import World
from ncps.errors import Malformed, StorageFull, Unavailable
from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import NarKey, is_opaque
from ncps.observe.decisions import are_logged
from ncps.peering import trail
from ncps.ports import Blocked, Catalog, NarInfoEntry, NarRecord
from ncps.ports.catalog import UPLOAD

REFRESH_S = 3600.0
"""Seconds after which a narinfo whose NAR is not stored is fetched again, because upstreams collect
garbage."""

EVICTED_REFRESH_S = 10.0
"""The same for a NAR that was stored earlier: its narinfo may be very old, and a client that gets
the narinfo relies on the NAR."""

_UPSTREAM_LINE = b"NcpsUpstream: "
_UPLOAD_LINE = b"NcpsUpload: yes"
_MADE_LINE = b"NcpsMadeFrom: "


class Records:
    """Finds narinfos without asking an upstream, and writes them into the catalog and the store.

    :param is_arriving: whether a NAR is being downloaded now.
    :ivar symbols: receives the stored NARs that may have files with symbols.
    """

    _log = Logger()

    def __init__(
        self,
        world: World,
        state: CacheState,
        vetting: NarInfoVerifier,
        is_arriving: Callable[[NarKey], bool],
    ) -> None:
        self._wall = wall_of(world.clock)
        self._catalog = world.catalog
        self._upstreams = world.upstreams
        self._store = world.narinfos
        self._disagreements = world.metrics.disagreements
        self._memory = state.memory
        self._negatives = state.negatives
        self._board = state.board
        self._row = partial(_without_lost_twin, world, state.board, self.published)
        self._vetting = vetting
        self._is_arriving = is_arriving
        self._paths = state.paths
        self.symbols = SymbolNews()

    async def find(self, digest: str, *, says_why: bool = False) -> KnownNarInfo | None:
        """Return a known narinfo that may be shown now; None if there is none.

        :param says_why: whether to log at level debug why there is none.
        """
        item = self._memory.get(digest)
        if item is None or not self.may_show(item):  # another replica may have stored its NAR since
            item = await self.look_up(digest)
        if item is not None and self.may_show(item):
            return item
        if says_why and are_logged():
            reason = _why_hidden(item, self._upstreams)
            self._log.debug("narinfo {hash} is no hit: {reason}", hash=digest, reason=reason)
        return None

    async def look_up(self, digest: str) -> KnownNarInfo | None:
        """Read a narinfo from the catalog; keep it in memory unless it may have changed since."""
        changes = self._memory.changes
        row = await self._row(digest)
        item = None if row is None else await self._trusted(*row)
        if item is not None and self._memory.changes == changes:
            self._memory.put(item)
        return item

    async def among(self, digests: Sequence[str]) -> dict[str, KnownNarInfo]:
        """Return those narinfos among many that are known and may be shown now.

        The memory does not keep them, because a query for thousands would displace the narinfos
        that clients ask for often. A thread reads the catalog, so that other requests go on.

        :param digests: about a hundred, because the texts of all are in memory at the same time.
        """
        found: dict[str, KnownNarInfo] = {}
        for digest, read in (await self._catalog.narinfos_among(digests)).items():
            row = read or await self._catalog.narinfo(digest)  # too long for the query
            item = None if row is None else await self._trusted(*row)
            if item is not None and self.may_show(item):
                found[digest] = item
        for digest in digests:
            if digest not in found:  # it may be in memory without a record
                item = self._memory.get(digest)
                if item is not None and self.may_show(item):
                    found[digest] = item
        return found

    async def _trusted(self, entry: NarInfoEntry, nar: NarRecord) -> KnownNarInfo | None:
        """Return a narinfo of the catalog as it may be served; None if it must not be."""
        vouched = await self._vetting.apart(self._vetting.vouched, entry)
        if vouched is not None and is_right(vouched.narinfo, nar):
            return self._known(vouched, nar)
        if are_logged():
            reason = _why_not_trusted(vouched)
            self._log.debug(
                "the record of narinfo {hash} is not shown: {reason}",
                hash=entry.digest,
                reason=reason,
            )
        return None

    def _known(self, entry: NarInfoEntry, nar: NarRecord) -> KnownNarInfo:
        return known(entry, nar, self._upstreams.names.get(entry.upstream, ""))

    def may_show(self, item: KnownNarInfo) -> bool:
        """Return whether clients can get its NAR now, as far as is known."""
        if item.nar.is_stored:
            return True
        # In a ring no upstream is asked for its NAR, and no upstream has the file of a twin.
        if trail.current().has_come_round or item.nar.made_from:
            return False
        fresh_s = EVICTED_REFRESH_S if item.nar.was_stored else REFRESH_S
        is_fresh = abs(self._wall() - item.fetched_at) < fresh_s  # a future time: a clock was set
        if is_fresh and self._upstreams.is_reachable(item.upstream):
            return True
        return self._is_arriving(item.nar.key)

    async def record(self, vetted: Vetted) -> KnownNarInfo:
        """Record a narinfo and keep it in memory; serve it even if it cannot be recorded.

        Raises Blocked if the path or its NAR is blocked.
        """
        entry, nar, changes = vetted.entry, vetted.nar, self._memory.changes
        is_removed = False
        try:
            self._appeared(vetted)
            is_new = await _is_added_as_new(self._catalog, vetted)
            if not is_new:
                vetted, known_nar = await named(self._catalog, vetted)
                entry, nar = vetted.entry, vetted.nar
                self._appeared(vetted)
                row = await self._catalog.narinfo(entry.digest)
                if row is None or not await self._is_overruled(entry, *row):
                    if row is not None:
                        entry = await self._vetting.apart(self._vetting.merged, entry, row[0])
                    entry = agreeing(entry, known_nar)
                    await self._catalog.add_narinfo(entry, nar)
            is_sure = is_new and self._memory.changes == changes
            item = None if is_sure else await self.look_up(entry.digest)
            is_removed = item is None and not is_sure
            if item is not None and item.nar.is_stored:
                await self.keep_beside(entry, item.nar)
        except Blocked:
            self._negatives.add(entry.digest)
            raise
        except (Unavailable, StorageFull) as error:
            self._appeared(vetted)
            tell = self._log.debug if is_unwanted() else self._log.warn
            text = "narinfo {hash} is served but not recorded: {reason}"
            tell(text, hash=entry.digest, reason=str(error))
            item = None
        if item is None:
            item = self._known(entry, nar)
            if not is_removed:  # otherwise the memory would show it to the next clients
                self._memory.put(item)
        self._paths.note(item.nar.key, item.digest)
        return item

    def _appeared(self, vetted: Vetted) -> None:
        """Forget that a narinfo, or its NAR under one of its names, was absent."""
        self._board.appeared(vetted.entry.digest, vetted.nar.key)
        if vetted.conventional is not None:
            self._negatives.forget(vetted.conventional)

    async def _is_overruled(self, new: NarInfoEntry, old: NarInfoEntry, nar: NarRecord) -> bool:
        """Return whether an older narinfo wins over a new one: the first verified one does."""
        if new.narinfo.nar_hash == old.narinfo.nar_hash:
            return False
        holds = nar.is_stored and old.is_verified
        holds = holds and await self._vetting.apart(self._vetting.vouched, old) is not None
        self._disagreements.inc()
        self._log.error(
            "{upstream} says NarHash {new} of {path}, {other} said {old}; the {winner} one is used",
            upstream=new.upstream,
            new=str(new.narinfo.nar_hash),
            path=old.narinfo.store_path.base,
            other=old.upstream,
            old=str(old.narinfo.nar_hash),
            winner="older" if holds else "newer",
        )
        return holds

    async def published(
        self,
        nar: NarRecord,
        narinfos: Sequence[NarInfoEntry] | None = None,
        build_ids: Sequence[str] = (),
    ) -> None:
        """Note that a NAR's bytes are published and marked in the catalog.

        :param narinfos: the NAR's narinfos in the catalog; None if this function must read them.
        :param build_ids: build IDs of the files with symbols that were found in the NAR.
        """
        self._board.nar_changed(nar.key)
        if narinfos is None:
            narinfos = await self._catalog.narinfos_of(nar.key)
        for entry in narinfos:
            await self.keep_beside(entry, nar)
        if build_ids or nar.verified_at is None or not nar.upstream:
            self.symbols.published(nar, narinfos, build_ids)

    async def keep_beside(self, entry: NarInfoEntry, nar: NarRecord) -> None:
        """Put the sidecar of a published NAR into the store."""
        text = render_sidecar(entry, self._vetting.own_names) + render_making(nar)
        try:
            await self._store.put(entry.digest, text)
        except (Unavailable, StorageFull) as error:
            self._log.warn(
                "narinfo {hash} is not kept beside its NAR: {reason}",
                hash=entry.digest,
                reason=str(error),
            )


def _why_not_trusted(vouched: NarInfoEntry | None) -> str:
    """Say why a row is not shown: nothing vouches for its narinfo, or its NAR has a wrong name."""
    if vouched is None:
        return "no key that is trusted now vouches for it"
    return "its NAR has a name that it has not earned"


async def _without_lost_twin(
    world: World,
    board: Invalidation,
    published: Callable[[NarRecord], Awaitable[None]],
    digest: str,
) -> tuple[NarInfoEntry, NarRecord] | None:
    """Return the row of a narinfo; one that names a lost twin is changed to name the original.

    The sidecar was lost with the twin, so a stored original gets a new one.
    """
    row = await world.catalog.narinfo(digest)
    if row is None or row[1].is_stored or not row[1].made_from:
        return row
    if await world.twins.part(row[1].key):
        board.nar_changed(row[1].key)
    row = await world.catalog.narinfo(digest)
    if row is not None and row[1].is_stored:
        await published(row[1])
    return row


async def _is_added_as_new(catalog: Catalog, vetted: Vetted) -> bool:
    """Record a narinfo if its path and its NAR are new; return whether that is done.

    Returns False also if the catalog cannot write it. Then the caller tries step by step.
    """
    try:
        return await catalog.add_new_narinfo(vetted.entry, vetted.nar, vetted.conventional)
    except (Unavailable, StorageFull):
        return False


def _why_hidden(item: KnownNarInfo | None, upstreams: Upstreams) -> str:
    """Say why a narinfo is not known, or why `Records.may_show` is False for it."""
    if item is None:
        return "nothing about it is recorded"
    where = f"its NAR {item.nar.key.file_name} is not stored"
    if trail.current().has_come_round:
        return f"{where}, and this cache itself asked for it"
    if not upstreams.is_reachable(item.upstream):
        return f"{where}, and {item.upstream_name or item.upstream} is away"
    return f"{where}, and what {item.upstream_name or item.upstream} said is too old"


def is_right(narinfo: NarInfo, there: NarRecord) -> bool:
    """Return whether a recorded narinfo may show the name that it has for its NAR.

    An old row may have the name of another file.
    """
    if is_opaque(there.key, narinfo.compression, narinfo.nar_hash):
        return True
    is_known = there.is_stored and there.verified_at is not None
    return is_known and there.nar_hash == narinfo.nar_hash


def render_sidecar(entry: NarInfoEntry, own_names: Collection[str]) -> bytes:
    """Return the text of an entry's sidecar.

    The sidecar of an upload does not name an upstream. It keeps our signature, by which a rebuild
    knows that this cache has accepted the upload.

    :param own_names: names of our keys. Their signatures are left out, and so is the signature of
        the key that has signed the entry.
    """
    if entry.verified_by == UPLOAD:
        return entry.narinfo.render() + _UPLOAD_LINE + b"\n"
    ours = {*own_names, entry.signed_by.partition(":")[0]}
    theirs = tuple(s for s in entry.narinfo.signatures if s.name not in ours)
    narinfo = evolve(entry.narinfo, url=entry.upstream_url or entry.narinfo.url, signatures=theirs)
    return narinfo.render() + _UPSTREAM_LINE + entry.upstream.encode() + b"\n"


def render_making(nar: NarRecord) -> bytes:
    """Return the line of a sidecar that says from which NAR ncps made a twin; empty for others."""
    if not nar.made_from:
        return b""
    return _MADE_LINE + f"{nar.made_from} {nar.made_level}\n".encode()


def parse_making(sidecar: bytes) -> tuple[str, int]:
    """Return `made_from` and `made_level` of a sidecar's NAR. Raises Malformed if it is damaged."""
    for line in sidecar.splitlines():
        if line.startswith(_MADE_LINE):
            words = line[len(_MADE_LINE) :].decode("ascii", "replace").split()
            if len(words) != 2 or not words[1].isdecimal() or len(words[1]) > 2:
                raise Malformed("its line about the making of its file is damaged")
            return NarKey.parse(words[0]).file_name, int(words[1])
    return "", 0


def is_upload(sidecar: bytes) -> bool:
    """Return whether a sidecar says that a client uploaded its narinfo."""
    return _UPLOAD_LINE in sidecar.splitlines()


def parse_sidecar(text: bytes) -> tuple[NarInfo, str]:
    """Return the upstream's narinfo, and its base URL; empty if the text does not name one.

    Raises Malformed if the text is no narinfo.
    """
    upstream = ""
    for line in text.splitlines():
        if line.startswith(_UPSTREAM_LINE):
            upstream = line[len(_UPSTREAM_LINE) :].decode("utf-8", "replace").strip()
    return NarInfo.parse(text), upstream
