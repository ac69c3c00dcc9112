"""Record: finds narinfos in memory and catalog, decides whether to show them, writes new ones down.

A narinfo is shown only while its NAR can be had: its bytes are stored, are on their way, or its
upstream is not known to be away (P1). A verified one is recorded, and kept beside its NAR.

It is recorded with a name for its NAR that belongs to no other file. The facts of a file in a
narinfo are not signed. So stored bytes get a conventional name only if they were found to have its
hash, and this NAR inside. Of the opaque names a NAR gets the first that does not stand for another
file of it.

A lost catalog is rebuilt from the text beside each published NAR, its sidecar (D13). It is the
upstream's narinfo, signatures and original URL included, and one line of our own that names the
upstream, or says that a client uploaded it. Nix ignores lines it does not know, so the text is a
narinfo.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial

from attrs import evolve
from twisted.logger import Logger

from ncps.aio.clocks import wall_of
from ncps.aio.guess import is_unwanted
from ncps.ask.choose import Upstreams
from ncps.cache.narinfo.state import CacheState, Invalidation, KnownNarInfo, SymbolNews, known
from ncps.cache.narinfo.verify import NarInfoVerifier, Vetted
from ncps.cache.world import World
from ncps.errors import Malformed, StorageFull, Unavailable
from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import VARIANTS, NarKey, is_opaque, opaque_key
from ncps.observe.decisions import are_logged
from ncps.peering import trail
from ncps.ports import Blocked, Catalog, NarInfoEntry, NarRecord
from ncps.ports.catalog import UPLOAD

REFRESH_S = 3600.0
"""After this time, a narinfo whose NAR is not stored is asked for again: upstreams collect
garbage."""

EVICTED_REFRESH_S = 10.0
"""The same where the NAR was stored and is not any more: its narinfo may be from long ago, and a
client that is shown it counts on the NAR."""

_UPSTREAM_LINE = b"NcpsUpstream: "
_UPLOAD_LINE = b"NcpsUpload: yes"
_MADE_LINE = b"NcpsMadeFrom: "


class Records:
    """Finds narinfos without asking an upstream, and writes them into the catalog and the store.

    :param is_arriving: whether a NAR is being downloaded right now.
    :ivar symbols: told of stored NARs that have files with symbols.
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
        """Return what is known and may be shown now.

        :param says_why: whether to log at level debug why there is nothing.
        """
        item = self._memory.get(digest)
        if item is None or not self.may_show(item):  # another replica may have stored its NAR
            item = await self.look_up(digest)
        if item is not None and self.may_show(item):
            return item
        if says_why and are_logged():
            reason = _why_hidden(item, self._upstreams)
            self._log.debug("narinfo {hash} is no hit: {reason}", hash=digest, reason=reason)
        return None

    async def look_up(self, digest: str) -> KnownNarInfo | None:
        """Read the catalog; keep it in memory unless it may have changed meanwhile."""
        changes = self._memory.changes
        row = await self._row(digest)
        item = None if row is None else await self._trusted(*row)
        if item is not None and self._memory.changes == changes:
            self._memory.put(item)
        return item

    async def among(self, digests: Sequence[str]) -> dict[str, KnownNarInfo]:
        """Return those of many that are known and may be shown now.

        Nothing of it is kept in memory: a question about thousands would drop what clients ask for
        again and again. The catalog is read in a thread, so that others get their turn.

        :param digests: a hundred or so: the texts of all are in memory at once.
        """
        found: dict[str, KnownNarInfo] = {}
        for digest, read in (await self._catalog.narinfos_among(digests)).items():
            row = read or await self._catalog.narinfo(digest)  # a long one
            item = None if row is None else await self._trusted(*row)
            if item is not None and self.may_show(item):
                found[digest] = item
        for digest in digests:
            if digest not in found:  # it may be served without being recorded
                item = self._memory.get(digest)
                if item is not None and self.may_show(item):
                    found[digest] = item
        return found

    async def _trusted(self, entry: NarInfoEntry, nar: NarRecord) -> KnownNarInfo | None:
        """Return a narinfo of the catalog as it may be served; None if it is not trusted."""
        vouched = await self._vetting.apart(self._vetting.vouched, entry)
        if vouched is not None and is_right(vouched.narinfo, nar):
            return self._known(vouched, nar)
        if are_logged():
            reason = "its NAR has a name that it has not earned"
            if vouched is None:
                reason = "no key that is trusted now vouches for it"
            self._log.debug(
                "the record of narinfo {hash} is not shown: {reason}",
                hash=entry.digest,
                reason=reason,
            )
        return None

    def _known(self, entry: NarInfoEntry, nar: NarRecord) -> KnownNarInfo:
        return known(entry, nar, self._upstreams.names.get(entry.upstream, ""))

    def may_show(self, item: KnownNarInfo) -> bool:
        """Whether its NAR can be had now, as far as is known."""
        if item.nar.is_stored:
            return True
        # Nobody would be asked for its NAR, and no upstream has the file of a twin.
        if trail.current().has_come_round or item.nar.made_from:
            return False
        fresh_s = EVICTED_REFRESH_S if item.nar.was_stored else REFRESH_S
        is_fresh = abs(self._wall() - item.fetched_at) < fresh_s  # from the future: a clock was set
        if is_fresh and self._upstreams.is_reachable(item.upstream):
            return True
        return self._is_arriving(item.nar.key)

    async def record(self, vetted: Vetted) -> KnownNarInfo:
        """Write a narinfo down and hold it; one that cannot be written is served all the same.

        Raises Blocked if this cache never has the path or its NAR.
        """
        entry, nar, changes, is_new = vetted.entry, vetted.nar, self._memory.changes, False
        try:
            vetted, known_nar = await named(self._catalog, vetted)
            entry, nar = vetted.entry, vetted.nar
            self._appeared(vetted)
            row = await self._catalog.narinfo(entry.digest)
            if row is None or not await self._is_overruled(entry, *row):
                if row is not None:
                    entry = await self._vetting.apart(self._vetting.merged, entry, row[0])
                entry = agreeing(entry, known_nar)
                await self._catalog.add_narinfo(entry, nar)
                is_new = (row, known_nar, self._memory.changes) == (None, None, changes)
            item = None if is_new else await self.look_up(entry.digest)
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
            self._memory.put(item)
        self._paths.note(item.nar.key, item.digest)
        return item

    def _appeared(self, vetted: Vetted) -> None:
        """Let what was absent be asked for again, under each name that the NAR may have."""
        self._board.appeared(vetted.entry.digest, vetted.nar.key)
        if vetted.conventional is not None:
            self._negatives.forget(vetted.conventional)

    async def _is_overruled(self, new: NarInfoEntry, old: NarInfoEntry, nar: NarRecord) -> bool:
        """Whether an older narinfo holds against a new one: the first verified one wins."""
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
        """Take note that a NAR's bytes are published and marked in the catalog.

        :param narinfos: of the NAR, as the catalog has them now; None if they are to be read.
        :param build_ids: of the files with symbols that were found in it.
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


async def _without_lost_twin(
    world: World,
    board: Invalidation,
    published: Callable[[NarRecord], Awaitable[None]],
    digest: str,
) -> tuple[NarInfoEntry, NarRecord] | None:
    """Return the row of a narinfo. One that names a lost twin names the original again.

    The sidecar went with the twin: a stored original gets its own.
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


def _why_hidden(item: KnownNarInfo | None, upstreams: Upstreams) -> str:
    """Say why `Records.may_show` is False."""
    if item is None:
        return "nothing about it is recorded"
    where = f"its NAR {item.nar.key.file_name} is not stored"
    if trail.current().has_come_round:
        return f"{where}, and this cache itself asked for it"
    if not upstreams.is_reachable(item.upstream):
        return f"{where}, and {item.upstream_name or item.upstream} is away"
    return f"{where}, and what {item.upstream_name or item.upstream} said is too old"


async def named(catalog: Catalog, vetted: Vetted) -> tuple[Vetted, NarRecord | None]:
    """Give the NAR its name; return the row of that name, too.

    Raises Unavailable if the catalog cannot be asked.
    """
    nar = vetted.nar
    assert nar.nar_hash is not None
    if vetted.conventional is not None:
        there = await catalog.nar(vetted.conventional)
        if there is not None and _is_earned(there, nar):
            return vetted.named(there.key), there
    for variant in range(VARIANTS):
        key = opaque_key(nar.compression, nar.nar_hash, variant)
        there = await catalog.nar(key)
        if there is None or not _is_of_another_file(there, nar):
            break
    return vetted.named(key), there


def is_right(narinfo: NarInfo, there: NarRecord) -> bool:
    """Whether a recorded narinfo may show the name that it has for its NAR.

    Rows from the time before names were earned may have the name of another file.
    """
    if is_opaque(there.key, narinfo.compression, narinfo.nar_hash):
        return True
    is_known = there.is_stored and there.verified_at is not None
    return is_known and there.nar_hash == narinfo.nar_hash


def agreeing(entry: NarInfoEntry, nar: NarRecord | None) -> NarInfoEntry:
    """The narinfo as it fits the bytes that are or were stored under its URL.

    Upstreams compress one NAR differently, and may say something untrue of the file; the bytes
    that came first stay.
    """
    if nar is None or not nar.was_stored or entry.narinfo.compression == "none":
        return entry
    narinfo = entry.narinfo
    file_hash = None if narinfo.file_hash is None else nar.file_hash or narinfo.file_hash
    file_size = None if narinfo.file_size is None else nar.file_size or narinfo.file_size
    return evolve(entry, narinfo=evolve(narinfo, file_hash=file_hash, file_size=file_size))


def _is_earned(there: NarRecord, nar: NarRecord) -> bool:
    """Whether stored bytes were found to be as a narinfo says, with the hash in their name."""
    return (
        there.is_stored
        and there.verified_at is not None
        and there.nar_hash == nar.nar_hash
        and there.compression == nar.compression
    )


def _is_of_another_file(there: NarRecord, nar: NarRecord) -> bool:
    """Whether a name may stand for another file than a narinfo says, though for the same NAR.

    A client may have a part of that file. Where all of it is stored and right, that file
    may be served instead.
    """
    hashes = {there.file_hash, nar.file_hash}
    is_here = there.is_stored and there.verified_at is not None
    return not is_here and None not in hashes and len(hashes) > 1


def render_sidecar(entry: NarInfoEntry, own_names: Collection[str]) -> bytes:
    """Return the text of an entry's sidecar.

    That of an upload has another line instead, and keeps our signature, by which a rebuild knows
    that this cache has accepted it.

    :param own_names: signatures of these key names are ours and left out, as is that of the key by
        which the entry was signed.
    """
    if entry.verified_by == UPLOAD:
        return entry.narinfo.render() + _UPLOAD_LINE + b"\n"
    ours = {*own_names, entry.signed_by.partition(":")[0]}
    theirs = tuple(s for s in entry.narinfo.signatures if s.name not in ours)
    narinfo = evolve(entry.narinfo, url=entry.upstream_url or entry.narinfo.url, signatures=theirs)
    return narinfo.render() + _UPSTREAM_LINE + entry.upstream.encode() + b"\n"


def render_making(nar: NarRecord) -> bytes:
    """Return the line of a sidecar that says how ncps has made the NAR's file; empty if not."""
    if not nar.made_from:
        return b""
    return _MADE_LINE + f"{nar.made_from} {nar.made_level}\n".encode()


def parse_making(sidecar: bytes) -> tuple[str, int]:
    """Return `made_from` and `made_level` of a sidecar's NAR. Raises Malformed for a wrong line."""
    for line in sidecar.splitlines():
        if line.startswith(_MADE_LINE):
            words = line[len(_MADE_LINE) :].decode("ascii", "replace").split()
            if len(words) != 2 or not words[1].isdecimal() or len(words[1]) > 2:
                raise Malformed("its line about the making of its file is damaged")
            return NarKey.parse(words[0]).file_name, int(words[1])
    return "", 0


def is_upload(sidecar: bytes) -> bool:
    """Whether a sidecar says that a client uploaded its narinfo."""
    return _UPLOAD_LINE in sidecar.splitlines()


def parse_sidecar(text: bytes) -> tuple[NarInfo, str]:
    """Return the upstream's narinfo and its base URL, empty if the text does not name one.

    Raises Malformed if the text is no narinfo.
    """
    upstream = ""
    for line in text.splitlines():
        if line.startswith(_UPSTREAM_LINE):
            upstream = line[len(_UPSTREAM_LINE) :].decode("utf-8", "replace").strip()
    return NarInfo.parse(text), upstream
