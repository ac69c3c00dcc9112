"""Uploads, joined from their parts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

from ncps.aio.tasks import Ticker
from ncps.assembly.leases import alone
from ncps.assembly.parts import Foundation
from ncps.cache.core import Core
from ncps.cache.upkeep.abandoned import AbandonedUploads
from ncps.cache.world import World
from ncps.cache.write.nars import KnownPaths
from ncps.cache.write.quota import Quota
from ncps.cache.write.rules import UploadRules
from ncps.cache.write.uploads import CacheUploads
from ncps.errors import NcpsError
from ncps.observe.metrics import Metrics
from ncps.settings.schema.cache import CacheSettings

QUOTA_S: Final = 60.0
"""Seconds between two counts of the uploads that no upstream has."""

ABANDONED_S: Final = 600.0
"""Seconds between two searches for uploads without a narinfo, at most."""


def uploads_of(world: World, base: Foundation, core: Core) -> CacheUploads:
    """Make the verbs of uploads."""
    known = KnownPaths(
        state=core.state,
        records=core.records,
        narinfos=core.narinfos,
        nars=core.nars,
        verifier=core.verifier,
        vetting=core.vetting,
    )
    made = CacheUploads(world, known, upload_rules(base.settings.cache, base.metrics))
    made.watch(core.publication.grown)
    return made


def upload_rules(cache: CacheSettings, metrics: Metrics) -> UploadRules:
    """Return the rules of uploads."""
    rules = UploadRules(
        largest_store=cache.max_size_bytes,
        keeps_only_copies=not cache.lru.evict_uploads,
        is_eager=cache.verify_while_arriving != "false",
        max_ratio=cache.max_decompression_ratio,
        reached=lambda limit: metrics.limit_reached(limit).inc(),
    )
    rules.take(cache)
    return rules


def upload_jobs(world: World, core: Core, uploads: CacheUploads) -> Iterator[Ticker]:
    """Yield the background jobs of uploads."""
    rules = uploads.rules
    abandoned = AbandonedUploads(world, core.narinfos, core.state.uses, grace_s=rules.grace_s)

    async def check() -> None:
        abandoned.grace_s = rules.grace_s
        await abandoned.check()

    look = alone(world.leases, "abandoned", check)
    yield Ticker(world.clock, "abandoned uploads", look, min(ABANDONED_S, rules.grace_s / 2))
    yield Ticker(world.clock, "room for uploads", partial(_count, uploads.quota), QUOTA_S)


async def _count(quota: Quota) -> None:
    try:
        await quota.check()
    except NcpsError:  # an upload counts, too, and reports the error
        return
