"""Uploads of narinfos: make a stored NAR a store path that clients see.

    parse --> path and permission --> trust --> NAR here, inspected, as it says --> references
          --> under the leases of path and NAR: sidecar, row, both durable --> all replicas told

The sidecar is written before the row: a process that dies between the two leaves a narinfo that no
client sees, and that the sweep of strays removes. Under the lease of the path, the second of two
clients that send different NARs for it sees the narinfo of the first, and gets a conflict. The
lease of the NAR keeps eviction from removing the NAR meanwhile. Each upload takes the lease of the
path first, so no two uploads wait for each other.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Final

from attrs import evolve
from twisted.logger import Logger

from ncps.aio.clocks import utc_now
from ncps.auth.principal import Principal, Scope
from ncps.cache.narinfo.record import render_making, render_sidecar
from ncps.cache.world import World
from ncps.cache.write.inspection import UploadInspection
from ncps.cache.write.nars import KnownPaths, blocked, lease_for, take_lease
from ncps.cache.write.rules import UploadRules
from ncps.cache.write.trust import UploadTrust
from ncps.cache.write.verbs import UploadOutcome
from ncps.errors import Conflict, Malformed, NotFound, Refused, TooLarge, Unavailable
from ncps.nix.narinfo import MAX_SIZE, NarInfo
from ncps.nix.narurl import NarKey
from ncps.nix.storepath import StorePath
from ncps.ports import Blocked, NarInfoEntry, NarRecord

_PREFIX: Final = "nar/"

LONG: Final = 16 * 1024
"""Bytes of a narinfo above which a thread parses it: for a shorter one the wait takes longer."""


class _Removed(Unavailable):
    """The NAR of a narinfo is not stored any more."""


def key_in(narinfo: NarInfo) -> NarKey:
    """Return the key in the URL of an uploaded narinfo. Raises Malformed if it has none."""
    if not narinfo.url.startswith(_PREFIX):
        raise Malformed(f"URL must begin with {_PREFIX}, as in nar/<FileHash>.nar.xz")
    return NarKey.parse(narinfo.url.removeprefix(_PREFIX))


class NarInfoUploads:
    """Accepts narinfos."""

    _log = Logger()

    def __init__(
        self, world: World, known: KnownPaths, inspection: UploadInspection, rules: UploadRules
    ) -> None:
        self._world = world
        self._catalog = world.catalog
        self._known = known
        self._inspection = inspection
        self._rules = rules
        self._trust = UploadTrust(known.vetting, rules)

    async def put(self, digest: str, text: bytes, principal: Principal) -> UploadOutcome:
        """See `Uploads.put_narinfo`."""
        if len(text) > MAX_SIZE:
            raise TooLarge(f"a narinfo has at most {MAX_SIZE} bytes")
        if len(text) > LONG:
            narinfo = await self._world.threads.run(NarInfo.parse, text)
        else:
            narinfo = NarInfo.parse(text)
        path = narinfo.store_path
        if path.digest != digest:
            raise Malformed(f"StorePath is {path.base}, and the URL says {digest}")
        if not principal.may(Scope.WRITE, path.base):
            raise Refused(f"this client may not upload {path.base}")
        vetting = self._known.vetting
        trusted = await vetting.apart_for(narinfo, partial(self._trust.judge, narinfo))
        if await self._world.removals.is_blocked(digest):
            raise blocked(path.base)
        fresh = self._inspection.unclaimed(key_in(trusted.narinfo))
        if trusted.unproven is not None:
            fresh = None  # its bytes will be read, and the current row says which object has them
        nar = await self._nar_of(trusted.narinfo, fresh)
        if trusted.unproven is not None:
            await self._inspection.prove(nar, trusted.narinfo, trusted.unproven)
        if self._rules.needs_references:
            await self._find_references(narinfo)
        try:
            outcome = await self._accept(trusted.narinfo, nar.key)
        except _Removed:
            if fresh is None:
                raise
            nar = await self._nar_of(trusted.narinfo, None)  # it was removed before this began
            outcome = await self._accept(trusted.narinfo, nar.key)
        self._log.info(
            "narinfo of {path} was uploaded by {client}: {outcome}; trusted because of its"
            " {voucher}",
            path=path.base,
            client=principal.name or "a client without a name",
            outcome=outcome.value,
            voucher=trusted.voucher,
        )
        return outcome

    async def _nar_of(self, narinfo: NarInfo, fresh: NarRecord | None) -> NarRecord:
        """Return the row of the NAR that a narinfo names. Raises Malformed if that is not here.

        :param fresh: the row that this process wrote a moment ago, if it did.
        """
        key, nar = key_in(narinfo), fresh
        if nar is None:
            with suppress(NotFound):
                nar = await self._known.nars.find_stored(key)
        if nar is None:
            raise Malformed(f"{key.url} is not here: upload the NAR before its narinfo")
        nar = await self._inspection.facts(nar, narinfo)
        for name, stated, found in (
            ("Compression", narinfo.compression, nar.compression),
            ("FileHash", narinfo.file_hash or nar.file_hash, nar.file_hash),
            ("FileSize", narinfo.file_size or nar.file_size, nar.file_size),
            ("NarHash", narinfo.nar_hash, nar.nar_hash),
            ("NarSize", narinfo.nar_size, nar.nar_size),
        ):
            if stated != found:
                raise Malformed(f"{name} is {stated}, and the NAR that was uploaded has {found}")
        return nar

    async def _find_references(self, narinfo: NarInfo) -> None:
        """Raise Malformed if a reference is neither here nor at an upstream."""
        for path in narinfo.references.without(narinfo.store_path):
            await self._find_reference(path)

    async def _find_reference(self, path: StorePath) -> None:
        if await self._known.records.find(path.digest) is not None:
            return
        try:
            await self._known.narinfos.get(path.digest)
        except NotFound as error:
            if not error.is_certain:
                raise Unavailable(f"whether {path.base} exists cannot be told: {error}") from error
            raise Malformed(
                f"References names {path.base}, which is neither here nor at an upstream: upload it"
                " first"
            ) from error

    async def _accept(self, narinfo: NarInfo, key: NarKey) -> UploadOutcome:
        path = narinfo.store_path
        late = f"another client uploads {path.base}: try again"
        lease = await take_lease(self._world, f"upload:narinfo:{path.digest}", late)
        try:
            return await self._accept_alone(narinfo, key)
        finally:
            await lease.release()

    async def _accept_alone(self, narinfo: NarInfo, key: NarKey) -> UploadOutcome:
        lease = await lease_for(self._world, key)
        try:
            nar = await self._catalog.nar(key)
            if nar is None or not nar.is_stored or nar.nar_hash != narinfo.nar_hash:
                raise _Removed(f"{key.url} was removed meanwhile: upload the NAR again")
            if nar.uploaded_at is None and not nar.upstream:
                # A process died before it wrote the row, and the bytes were found in the store.
                nar = evolve(nar, uploaded_at=utc_now(self._world.clock))
                await self._catalog.mark_stored(nar, lease.fence)
            make = partial(self._trust.entry, narinfo, nar, utc_now(self._world.clock))
            new = await self._known.vetting.apart_for(narinfo, make)
            there = await self._catalog.narinfo(narinfo.store_path.digest)
            if there is None:
                await self._write(new, nar)
                return UploadOutcome.STORED
            return await self._replace(new, nar, *there)
        finally:
            await lease.release()

    async def _replace(
        self, new: NarInfoEntry, nar: NarRecord, old: NarInfoEntry, its: NarRecord
    ) -> UploadOutcome:
        """Replace an older narinfo of the path, or add signatures to it.

        Raises Conflict if the older one is trusted, and its NAR is stored and is another one.
        """
        vetting = self._known.vetting
        holds = its.is_stored and await vetting.apart(vetting.vouched, old) is not None
        if not holds:
            await self._write(new, nar)
            return UploadOutcome.STORED
        before, after = old.narinfo, new.narinfo
        if before.fingerprint() != after.fingerprint():
            raise Conflict(
                f"{before.store_path.base} is here with the NarHash {before.nar_hash} and"
                f" {len(before.references)} references; the upload says {after.nar_hash} and"
                f" {len(after.references)}: delete it first"
            )
        # The path keeps the NAR that is here, and the key that vouched for it.
        same = evolve(before, signatures=after.signatures)
        merged = await vetting.apart(vetting.merged, evolve(old, narinfo=same), old)
        if set(merged.narinfo.signatures) == set(before.signatures):
            return UploadOutcome.KNOWN
        await self._write(merged, its)
        return UploadOutcome.MERGED

    async def _write(self, entry: NarInfoEntry, nar: NarRecord) -> None:
        """Write sidecar and row, durably, and tell all replicas. Raises StorageFull, too."""
        text = render_sidecar(entry, self._known.vetting.own_names) + render_making(nar)
        await self._world.narinfos.put(entry.digest, text)
        try:
            await self._catalog.add_narinfo(entry, nar, is_settled=True)
        except Blocked as error:
            await self._world.narinfos.delete(entry.digest)
            raise blocked(entry.narinfo.store_path.base) from error
        state = self._known.state
        state.memory.drop(entry.digest)
        state.board.appeared(entry.digest, nar.key)
        state.board.nar_changed(nar.key)
        state.paths.note(nar.key, entry.digest)
        self._known.records.symbols.stored(entry, nar)
        self._inspection.claimed(nar.key)
