"""Uploads of NARs: from the bytes of a client to a stored NAR without a narinfo.

The name of a file is its SHA-256, so two clients that send one name send the same bytes, and an
upload that is cut or repeated can do no harm. A file is received into a spool or into memory,
hashed and inspected, and then published under the lease of its NAR, like a download. So no other
process removes it between its publication and its row. The publication belongs to the cache: it
continues when the client leaves.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable
from datetime import datetime
from functools import partial
from typing import Final

from attrs import evolve, frozen
from twisted.logger import Logger

from ncps.aio.admission import Admitted
from ncps.aio.clocks import utc_now
from ncps.aio.single_flight import SingleFlight
from ncps.aio.waiting import within
from ncps.cache.cluster import lease_of
from ncps.cache.nar.serve import Nars
from ncps.cache.nar.stored import stored_key
from ncps.cache.nar.verify import Verifier
from ncps.cache.narinfo.record import Records
from ncps.cache.narinfo.serve import NarInfos
from ncps.cache.narinfo.state import CacheState
from ncps.cache.narinfo.verify import NarInfoVerifier
from ncps.cache.world import World
from ncps.cache.write.arriving import LEAST, MEMORY, MOST, Received, compression_by, peeked
from ncps.cache.write.held import Held, Memory
from ncps.cache.write.inspection import UploadInspection
from ncps.cache.write.quota import Quota
from ncps.cache.write.rules import UploadRules
from ncps.cache.write.verbs import UploadOutcome
from ncps.codec import is_supported
from ncps.errors import (
    Conflict,
    Malformed,
    NotFound,
    Refused,
    StorageFull,
    TooLarge,
    Unavailable,
)
from ncps.nix.hashes import Hash
from ncps.nix.nar import MAGIC
from ncps.nix.narcheck import FileDigest
from ncps.nix.narurl import COMPRESSIONS, NarKey
from ncps.observe.tracing.spans import NO_SPAN, Attributes, Span, current, span
from ncps.ports import SMALL, Blocked, Catalog, Lease, Leases, NarRecord

LEASE_S: Final = 30.0
"""Seconds that an upload waits for another process that fetches or removes the same NAR."""


@frozen(kw_only=True)
class KnownPaths:
    """The parts of the core that know narinfos and NARs."""

    state: CacheState
    records: Records
    narinfos: NarInfos
    nars: Nars
    verifier: Verifier
    vetting: NarInfoVerifier


def blocked(name: str) -> Refused:
    """Return the refusal of an upload whose path or NAR an operator has blocked."""
    return Refused(f"{name} is blocked here (`ncps rm --list-blocked`)")


async def has_row(catalog: Catalog, key: NarKey) -> bool:
    """Return whether a NAR is stored by this name, or a file that has the hash in the name."""
    nar = await catalog.nar(key)
    if nar is not None and nar.is_stored:
        return True
    try:
        return await catalog.stored_file(key.as_hash(), key.extension) is not None
    except Malformed:
        return False


async def lease_for(world: World, key: NarKey) -> Lease:
    """Take the lease of a NAR. Raises Unavailable if it is not free within `LEASE_S`."""
    late = f"another process fetches or removes {key.file_name}: try again"
    return await take_lease(world, lease_of(key), late)


async def take_lease(world: World, name: str, late: str) -> Lease:
    """Take a lease. Raises Unavailable, with the text `late` if it is not free in `LEASE_S`."""
    leases: Leases = world.leases
    return await within(world.clock, LEASE_S, leases.take(name), late)


class NarUploads:
    """Receives and stores the files of NARs.

    :param stored: called for each NAR that was stored.
    """

    _log = Logger()

    def __init__(
        self,
        world: World,
        known: KnownPaths,
        quota: Quota,
        inspection: UploadInspection,
        rules: UploadRules,
    ) -> None:
        self._world = world
        self._known = known
        self._negatives = known.state.negatives
        self._uses = known.state.uses
        self._quota = quota
        self._inspection = inspection
        self._rules = rules
        self.stored: Callable[[], object] = lambda: None
        self._arriving = 0
        self._memory = Memory()
        self._flights: SingleFlight[NarKey, UploadOutcome] = SingleFlight(world.tasks, "upload")
        self._keeping: dict[NarKey, Span] = {}

    async def put(
        self, key: NarKey, chunks: AsyncIterable[bytes], size: int | None
    ) -> UploadOutcome:
        """See `Uploads.put_nar`."""
        named = _hash_in(key)
        await self._refuse_blocked(key, named)
        self._quota.refuse_large(size or 0)
        await self._quota.refuse(size or 0)
        self._arriving += 1
        try:
            there = await self._find(key)
            if there is not None:
                return await self._compare(key, there, named, chunks, size)
            return await self._receive(key, named, chunks, size)
        finally:
            self._arriving -= 1

    async def _refuse_blocked(self, key: NarKey, *hashes: Hash) -> None:
        for each in hashes:
            if await self._world.removals.is_blocked_file(each):
                raise blocked(key.file_name)

    async def _find(self, key: NarKey) -> NarRecord | None:
        """Return the row of a stored NAR; None without one, also if the store has the bytes."""
        if not await has_row(self._world.catalog, key):
            return None
        try:
            return await self._known.nars.find_stored(key)
        except NotFound:  # ncps remembers its absence
            return None

    async def _compare(
        self,
        key: NarKey,
        there: NarRecord,
        named: Hash,
        chunks: AsyncIterable[bytes],
        size: int | None,
    ) -> UploadOutcome:
        """Compare the bytes of an upload with those that are stored, and store nothing."""
        digest, came = FileDigest(), 0
        async for chunk in chunks:
            came += len(chunk)
            if came > (there.file_size or came):
                raise _conflict(there)
            await self._world.threads.run(digest.feed, chunk)
        if size is not None and came != size:
            raise Malformed(f"{came} bytes came, {size} were announced")
        if digest.finish() != named:
            raise _conflict(there)
        if await self._world.nars.stat(stored_key(there)) is None:
            await self._known.verifier.healing.heal(there, NotFound("it is not in the store"))
            raise _removed(key)
        if await self._find(key) is None:
            raise _removed(key)
        self._uses.nar(there.key)
        return UploadOutcome.KNOWN

    async def _receive(
        self, key: NarKey, named: Hash, chunks: AsyncIterable[bytes], size: int | None
    ) -> UploadOutcome:
        ticket = self._world.admission.begin_upload()
        refusal = ticket.room(size)
        if refusal:
            ticket.close()
            raise StorageFull(refusal)
        received = self._received(ticket, size)
        try:
            head, whole = await peeked(chunks, len(MAGIC))
            compression = compression_by(key, head)
            await received.take(self._counted(whole), compression)
            if received.sha256 != named:
                raise Malformed(
                    f"the upload has the SHA-256 {received.sha256}, and its name is"
                    f" {key.file_name}: the name must be the hash of the file"
                )
            # The transaction that records it checks this, too: a small upload costs little before.
            if received.inside is not None and received.size > SMALL:
                await self._refuse_blocked(key, received.inside[0])
            await self._quota.refuse(received.size)
            current().link(self._keeping.get(key, NO_SPAN))
            return await self._flights.join(key, partial(self._keep, key, compression, received))
        finally:
            if not received.is_taken:
                received.close()

    def _received(self, ticket: Admitted, size: int | None) -> Received | Held:
        """Return the place for an upload of this size: memory, or else a spool."""
        if size is not None and self._memory.take(size):
            return Held(size, self._memory, ticket, self._inspection)
        piece = max(LEAST, min(MOST, MEMORY // self._arriving))
        world, inspection = self._world, self._inspection
        return Received(ticket, inspection, world.threads, announced=size, piece=piece)

    async def _counted(self, chunks: AsyncIterable[bytes]) -> AsyncIterable[bytes]:
        came, most = 0, self._rules.max_size
        async for chunk in chunks:
            came += len(chunk)
            if most and came > most:
                self._rules.reached("cache-upload-max-size")
                raise TooLarge(f"the upload has more than {most} bytes (cache-upload-max-size)")
            yield chunk

    async def _keep(
        self, key: NarKey, compression: str, received: Received | Held
    ) -> UploadOutcome:
        """Publish a received file, and close it."""
        received.is_taken = True
        self._keeping[key] = current()
        try:
            lease = await lease_for(self._world, key)
            try:
                there = await self._world.catalog.nar(key)
                if there is not None and there.is_stored:
                    return UploadOutcome.KNOWN
                now = utc_now(self._world.clock)
                record = _record_of(key, there, compression, received, now)
                facts: Attributes = {"ncps.hash": key.file_name, "ncps.bytes": received.size}
                with span("nar.publish", facts):
                    record = await self._publish(record, received, lease)
            finally:
                await lease.release()
        finally:
            del self._keeping[key]
            received.close()
        self._negatives.forget(key)
        assert record.stored_size is not None
        self._quota.stored(record.stored_size if record.is_only_copy else 0)
        self.stored()
        self._inspection.stored(record, received.build_ids)
        return UploadOutcome.STORED

    async def _publish(
        self, record: NarRecord, received: Received | Held, lease: Lease
    ) -> NarRecord:
        """Store bytes and row. Raises Unavailable if another process may have removed the bytes."""
        world = self._world
        stat = await received.store(world.nars, record.key)
        record = evolve(record, stored_tag=stat.tag)
        try:
            narinfos = await world.catalog.mark_stored(record, lease.fence, is_settled=True)
        except Conflict as error:
            raise Unavailable(f"another process has stored it meanwhile: {error}") from error
        except Blocked as error:
            await world.nars.delete(record.key)
            raise blocked(record.key.file_name) from error
        if lease.is_lost and await world.nars.stat(record.key) is None:
            await world.catalog.mark_missing(record.key)
            raise _removed(record.key)
        await self._known.records.published(record, narinfos)
        return record


def _hash_in(key: NarKey) -> Hash:
    """Return a name as a hash. Raises Malformed if it is none, or nothing decompresses the file."""
    compression = COMPRESSIONS[key.extension]
    if not is_supported(compression):
        raise Malformed(
            f"ncps cannot decompress {compression}, so it could not verify the NAR: use none, zstd"
            " or xz"
        )
    return key.as_hash()


def _record_of(
    key: NarKey,
    there: NarRecord | None,
    compression: str,
    received: Received | Held,
    now: datetime,
) -> NarRecord:
    """Return the row of a received file: its facts, and the known origin of the same file."""
    assert received.sha256 is not None
    base = there if there is not None else NarRecord(key=key, compression=compression)
    # One name, one file: facts that were computed from it before are still right.
    before = (base.nar_hash, base.nar_size) if base.was_stored else (None, None)
    nar_hash, nar_size = received.inside or before
    return evolve(
        base,
        compression=compression,
        encoding=compression,
        file_size=received.size,
        file_hash=received.sha256,
        nar_size=nar_size,
        nar_hash=nar_hash,
        stored_size=received.size,
        stored_at=now,
        verified_at=now if received.inside else None,
        last_used_at=now,
        uploaded_at=now,
    )


def _removed(key: NarKey) -> Unavailable:
    return Unavailable(f"another process has removed {key.file_name} meanwhile: send it again")


def _conflict(there: NarRecord) -> Conflict:
    return Conflict(f"another file is stored as {there.key.url}, and its name is its hash")
