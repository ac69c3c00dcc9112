"""The cache core, joined from its parts."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Final

from attrs import frozen

from ncps.aio.tasks import Ticker
from ncps.assembly.closures import Closures, closures
from ncps.assembly.keys import narinfo_verifier
from ncps.assembly.leases import Locking
from ncps.assembly.mending import Mending
from ncps.assembly.parts import Adapters, Foundation
from ncps.assembly.recompression import recompression_jobs
from ncps.assembly.upkeep import bounds, upkeep
from ncps.assembly.uploads import upload_jobs, upload_rules, uploads_of
from ncps.cache.ahead.rules import AheadRules
from ncps.cache.bulk.answers import Bulk
from ncps.cache.bulk.bulk import BulkQuestions
from ncps.cache.cache import PullThrough
from ncps.cache.core import Core, Rules, state_of
from ncps.cache.extras.kept import ExtraBounds
from ncps.cache.extras.verbs import ExtraRules, ExtraVerbs
from ncps.cache.nar.downloads import DownloadRules
from ncps.cache.nar.quarantine import QuarantineBounds
from ncps.cache.narinfo.verify import NarInfoVerifier
from ncps.cache.upkeep.agreement import Agreement
from ncps.cache.upkeep.clock_skew import Skew
from ncps.cache.upkeep.identity import CacheIdentity
from ncps.cache.upkeep.inspect import Inspection
from ncps.cache.upkeep.sharing import Sharing
from ncps.cache.world import World
from ncps.cache.write.uploads import CacheUploads
from ncps.nix.judge import Judge, Look
from ncps.settings.schema.tree import Settings


@frozen(kw_only=True)
class WorkingCache:
    """The cache, and the parts that maintain it.

    :ivar cache: for the pages of narinfos and NARs.
    :ivar uploads: for the pages of uploads.
    :ivar bulk: for the pages of queries about many paths.
    """

    cache: PullThrough
    uploads: CacheUploads
    extras: ExtraVerbs
    bulk: Bulk
    core: Core
    closures: Closures
    vetting: NarInfoVerifier
    agreement: Agreement
    sharing: Sharing
    skew: Skew
    inspection: Inspection
    mending: Mending
    upkeep: tuple[Ticker, ...]


def working_cache(
    world: World,
    base: Foundation,
    *,
    identity: CacheIdentity,
    locking: Locking,
    agreement: Agreement,
) -> WorkingCache:
    """Make the cache; nothing runs yet."""
    settings, parts = base.settings, base.parts
    vetting = narinfo_verifier(settings, identity, parts.workers)
    core = core_of(world, base, vetting)
    uploads = uploads_of(world, base, core)
    base.metrics.downloads_in_flight.set_function(lambda: core.nars.arriving)
    skew = Skew(parts.catalog)
    sharing = Sharing(parts.stores.config, _catalog_name(settings))
    verbs = closures(world, base, core)
    mending = Mending(parts.stores, parts.workers, base.role)
    troubles: dict[str, Callable[[], str]] = {
        **_troubles_of_store(parts, uploads, verbs),
        "clock": lambda: skew.trouble,
        "sharing": lambda: sharing.trouble,
        "replicas": lambda: agreement.trouble,
        "differences": lambda: agreement.difference,
        "directories": lambda: mending.trouble,
    }
    cache = PullThrough(
        world,
        core,
        public_key=identity.key.public,
        config=parts.stores.config,
        trouble_with_leases=lambda: locking.trouble,
        troubles=troubles,
    )
    extras = extras_of(world, base, core, cache, uploads)
    return WorkingCache(
        cache=cache,
        uploads=uploads,
        extras=extras,
        bulk=BulkQuestions(world, core, cache.narinfo),
        core=core,
        closures=verbs,
        vetting=vetting,
        agreement=agreement,
        sharing=sharing,
        skew=skew,
        inspection=_inspection(base, core),
        mending=mending,
        upkeep=(*verbs.tickers(world), *_jobs(world, base, core, sharing, uploads)),
    )


def _jobs(
    world: World, base: Foundation, core: Core, sharing: Sharing, uploads: CacheUploads
) -> tuple[Ticker, ...]:
    """Return the background jobs of the store and of uploads."""
    jobs = upkeep(world, base, core=core, may_sweep=lambda: not sharing.trouble)
    return *jobs, *upload_jobs(world, core, uploads), *recompression_jobs(world, base, core)


def _troubles_of_store(
    parts: Adapters, uploads: CacheUploads, verbs: Closures
) -> dict[str, Callable[[], str]]:
    """Return the warnings of `/readyz` about a store that is slow or accepts nothing new."""
    return {
        "speed": parts.stores.trouble,
        "room": lambda: parts.stores.room.trouble,
        "uploads": lambda: uploads.quota.trouble,
        "pins": lambda: verbs.room.trouble,
    }


def _inspection(base: Foundation, core: Core) -> Inspection:
    """Make the job that verifies stored NARs that were not verified yet."""
    return Inspection(
        catalog=base.parts.catalog,
        verifier=core.verifier,
        bytes_per_second=base.settings.cache.verify_rate_bytes,
    )


def extras_of(
    world: World, base: Foundation, core: Core, cache: PullThrough, uploads: CacheUploads
) -> ExtraVerbs:
    """Make the verbs for logs, listings and debug information from the settings."""
    settings = base.settings.cache
    rules = ExtraRules(
        bounds=ExtraBounds(
            object_size=settings.extra.max_object_size_bytes,
            fetched_size=settings.extra.max_size_bytes,
            uploaded_size=settings.extra.max_uploaded_size_bytes,
        ),
        negative_ttl_s=settings.negative.ttl_s,
        negative_entries=settings.negative.max_entries,
        is_absent_when_away=settings.upstream.away_answer == "absent",
    )
    extras = ExtraVerbs(world, cache, base.parts.stores.extras, rules)
    core.records.symbols.on_unread = extras.stored
    core.records.symbols.on_found = extras.found
    uploads.watch_symbols(extras.found)
    return extras


def core_of(world: World, base: Foundation, verifier: NarInfoVerifier) -> Core:
    """Make the core from the settings."""
    cache = base.settings.cache
    state = state_of(
        world,
        memory_size=memory_shares(base.settings)[0],
        negative_ttl_s=cache.negative.ttl_s,
        negative_entries=cache.negative.max_entries,
    )
    quarantine = cache.quarantine
    rules = Rules(
        quarantine=QuarantineBounds(
            count=quarantine.max_count, size=quarantine.max_size_bytes, age_s=quarantine.max_age_s
        ),
        downloads=DownloadRules(
            patience_s=cache.download.resume_timeout_s,
            new_judge=partial(
                Judge,
                look=_LOOKS[cache.verify_while_arriving],
                max_ratio=cache.max_decompression_ratio,
                reached=base.metrics.limit_reached("cache-max-decompression-ratio").inc,
            ),
        ),
        ahead=ahead_rules(base.settings),
        is_absent_when_away=cache.upstream.away_answer == "absent",
        upload_keys=upload_rules(cache, base.metrics).keys,
        uploads_need_key=cache.require_trusted_signature,
    )
    return Core(world, state, vetting=verifier, rules=rules)


def ahead_rules(settings: Settings) -> AheadRules:
    """Return the rules of prefetch from the settings.

    Above the middle between the low mark and the limit of the store, nothing is fetched ahead.
    """
    cache = settings.cache
    size = bounds(settings) if cache.max_size_bytes else None
    return AheadRules(
        policy=cache.prefetch.policy,
        small_size=cache.download.small_size_bytes,
        at_once=cache.upstream.max_prefetches,
        max_queue=cache.prefetch.max_queue,
        questions=cache.prefetch.max_questions,
        size=cache.prefetch.per_minute_bytes,
        most_stored=0 if size is None else (size.low + size.high) // 2,
    )


_LOOKS: Final = {
    "true": Look.ALWAYS,
    "auto": Look.KEEPING_PACE,
    "false": Look.IF_CHEAP,
}
"""The meaning of the words of `cache-verify-while-arriving`."""


def memory_shares(settings: Settings) -> tuple[int, int]:
    """Divide the memory for narinfos: bytes for their texts, and bytes for ready answers."""
    size = settings.cache.narinfo_memory_size_bytes
    hot = size * 3 // 8
    return size - hot, hot


def _catalog_name(settings: Settings) -> str:
    """Return a unique name of the catalog, even if machines or containers have the same paths."""
    url = settings.cache.database_url
    if not url.is_file:
        return str(url)
    return f"the database {url.path} (inode {url.path.stat().st_ino}) of {socket.gethostname()}"
