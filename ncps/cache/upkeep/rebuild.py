"""Rebuild: makes a catalog from a store whose database was lost (D13).

The rebuild does not trust the store: it checks each sidecar like the narinfo of an upstream, and
hashes the bytes of each NAR. Objects that no narinfo names stay where they are. They are adopted
when a client asks for them.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, evolve
from twisted.logger import Logger

from ncps.aio.clocks import utc_now
from ncps.cache.nar.adopt import Adoption
from ncps.cache.nar.objects import Objects
from ncps.cache.narinfo.proof import Proofs
from ncps.cache.narinfo.record import is_upload, parse_making, parse_sidecar
from ncps.cache.narinfo.verify import NarInfoVerifier, Vetted
from ncps.cache.world import World
from ncps.errors import Corrupt, Malformed, NcpsError, Unavailable
from ncps.nix.narurl import COMPRESSIONS, VARIANTS, NarKey, opaque_key
from ncps.ports import NarRecord
from ncps.ports.twins import renamed


@define
class RebuildTally:
    """The result of a rebuild."""

    narinfos: int = 0
    nars: int = 0
    without_bytes: int = 0
    refused: int = 0


@define
class Nameless:
    """The number and the bytes of the NARs in the store that no narinfo there names."""

    count: int = 0
    size: int = 0


class Rebuild:
    """Fills a catalog from the store. It may run at any time, and keeps existing rows."""

    _log = Logger()

    def __init__(
        self, world: World, *, adoption: Adoption, vetting: NarInfoVerifier, proofs: Proofs
    ) -> None:
        self._clock = world.clock
        self._catalog = world.catalog
        self._store = world.narinfos
        self._nars = world.nars
        self._objects = Objects(world)
        self._adoption = adoption
        self._vetting = vetting
        self._proofs = proofs

    async def run(
        self, progress: Callable[[RebuildTally], object] = lambda _: None
    ) -> RebuildTally:
        """Record all narinfos of the store and their NARs; log and pass over a damaged narinfo."""
        tally = RebuildTally()
        async for digest in self._store.walk():
            try:
                await self._take(digest, tally)
            except Unavailable:
                raise
            except NcpsError as error:
                tally.refused += 1
                self._log.warn(
                    "narinfo {hash} of the store is not used: {reason}",
                    hash=digest,
                    reason=str(error),
                )
            progress(tally)
        return tally

    async def nameless(self) -> Nameless:
        """Count the NARs of the store that the catalog does not have.

        Raises Unavailable if the store or the database is away.
        """
        found = Nameless()
        async for stat in self._nars.walk():
            if not await self._objects.is_owned(stat.key):
                found.count += 1
                found.size += stat.size
        return found

    async def _take(self, digest: str, tally: RebuildTally) -> None:
        text = await self._store.get(digest)
        if text is None:
            return
        try:
            narinfo, upstream = parse_sidecar(text)
            made_from, made_level = parse_making(text)
        except Malformed as error:
            raise Corrupt(str(error)) from error
        vetted = self._vetting.vet(
            narinfo,
            digest=digest,
            upstream=upstream,
            now=utc_now(self._clock),
            is_upload=is_upload(text),
        )
        vetted = await self._proofs.prove(vetted)
        making = evolve(vetted.nar, made_from=made_from, made_level=made_level)
        vetted = evolve(vetted, nar=making)
        if vetted.nar.uploaded_at is not None and vetted.conventional is not None:
            vetted = vetted.named(vetted.conventional)  # its client knows this name
        await self._record_original(vetted)
        await self._catalog.add_narinfo(vetted.entry, vetted.nar)
        tally.narinfos += 1
        nar = await self._catalog.nar(vetted.nar.key)
        if nar is not None and nar.is_stored:
            return
        if await self._adopt(vetted):
            tally.nars += 1
        else:
            tally.without_bytes += 1

    async def _record_original(self, vetted: Vetted) -> None:
        """Record the original of a twin, because clients may still have its URL (P5)."""
        twin = vetted.nar
        if not twin.made_from:
            return
        key = NarKey.parse(twin.made_from)
        if await self._catalog.nar(key) is not None:
            return
        original = NarRecord(
            key=key,
            compression=COMPRESSIONS[key.extension],
            nar_hash=twin.nar_hash,
            nar_size=twin.nar_size,
            upstream=twin.upstream,
            origin_url=twin.origin_url,
            recompressed_at=utc_now(self._clock),
        )
        await self._catalog.add_narinfo(renamed(vetted.entry, original), original)
        await self._adoption.adopt(key, original)

    async def _adopt(self, vetted: Vetted) -> bool:
        """Adopt the bytes under the first of the NAR's names that has them; False if none has."""
        nar = vetted.nar
        assert nar.nar_hash is not None
        if nar.uploaded_at is not None and await self._adoption.adopt(nar.key, nar) is not None:
            return True
        for variant in range(VARIANTS):
            named = vetted.named(opaque_key(nar.compression, nar.nar_hash, variant))
            if await self._adoption.adopt(named.nar.key, named.nar) is not None:
                if variant:
                    await self._catalog.add_narinfo(named.entry, named.nar)
                return True
        return False
