"""The signing keys of a running daemon, which it reads again after a rotation."""

from __future__ import annotations

from attrs import evolve

from ncps.aio.waiting import within
from ncps.assembly.core import WorkingCache
from ncps.assembly.parts import Foundation
from ncps.assembly.reload import PART_S, TROUBLE
from ncps.assembly.replicas import identity_as, key_wish, keys_text, own_facts
from ncps.cache.upkeep.identity import CacheIdentity, KeyWish
from ncps.errors import NcpsError, Unavailable
from ncps.ports import Replica
from ncps.settings.schema.tree import Settings


async def signing(base: Foundation, working: WorkingCache, settings: Settings) -> list[str]:
    """Sign with the present keys; return a line if they have changed or cannot be used."""
    before = working.cache.public_key
    try:
        key = await reload_keys(base, working, settings)
    except NcpsError as error:
        return [f"{TROUBLE}the signing keys stay as they are: {error}"]
    return [] if key == before else [f"narinfos are signed with {key}"]


async def reload_keys(base: Foundation, working: WorkingCache, settings: Settings) -> str:
    """Sign with the keys that store and settings have now; return the present public key.

    Narinfos in memory are read and signed again. Raises Refused, Corrupt, StorageFull or
    Unavailable if the keys cannot be used: then this process goes on signing with the old ones.

    :param settings: the present settings, of which only those of keys are used.
    """

    def read() -> tuple[KeyWish, Replica]:
        try:
            trusted = keys_text(settings.cache.upstream.public_keys)
            own = own_facts(base.settings, base.role)
            return key_wish(settings), evolve(own, trusted=trusted)
        except OSError as error:
            raise Unavailable(f"the storage cannot be read: {error.strerror}") from error

    async def identify() -> CacheIdentity:
        wish, own = await base.parts.workers.run(read)
        return await identity_as(base.parts, base.settings, wish, own)

    late = f"ncps cannot read them within {PART_S:g} s"
    identity = await within(base.reactor, PART_S, identify(), late)
    key = str(identity.key.public)
    if key == working.cache.public_key and tuple(identity.former) == tuple(working.vetting.former):
        return key
    working.vetting.use(identity.key, identity.former)
    working.cache.sign_as(identity.key.public)
    working.agreement.adopt(identity)
    await working.core.state.board.expire()
    return key
