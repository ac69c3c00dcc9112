"""The cache core, put together."""

from __future__ import annotations

import socket

from attrs import frozen

from ncps.assembly import limits
from ncps.assembly.keys import vetting
from ncps.assembly.leases import Locking
from ncps.assembly.mending import Mending
from ncps.assembly.parts import Adapters
from ncps.assembly.role import Role
from ncps.assembly.upkeep import Upkeep, upkeep
from ncps.cache.cache import PullThrough
from ncps.cache.core import Core, Rules
from ncps.cache.nar.downloads import DownloadRules
from ncps.cache.nar.quarantine import QuarantineBounds
from ncps.cache.narinfo.state import CacheState
from ncps.cache.narinfo.verify import NarInfoVerifier
from ncps.cache.upkeep.agreement import Agreement
from ncps.cache.upkeep.clock_skew import Skew
from ncps.cache.upkeep.inspect import Inspection
from ncps.cache.upkeep.sharing import Sharing
from ncps.cache.world import World
from ncps.nix.keys import SecretKey
from ncps.observe.metrics import Metrics
from ncps.settings.schema.tree import Settings


@frozen(kw_only=True)
class WorkingCache:
    """The cache, and what looks after it.

    :ivar cache: what the pages ask.
    """

    cache: PullThrough
    core: Core
    sharing: Sharing
    skew: Skew
    inspection: Inspection
    mending: Mending
    upkeep: Upkeep


def working_cache(
    world: World,
    settings: Settings,
    parts: Adapters,
    counters: Metrics,
    *,
    key: SecretKey,
    agreed: Locking,
    place: Role,
    agreement: Agreement,
) -> WorkingCache:
    """Put the cache together; nothing runs yet."""
    core = core_of(world, settings, vetting(settings, key, parts.workers), counters, parts)
    nars = core.nars
    counters.downloads_in_flight.set_function(lambda: nars.arriving)
    inspection = Inspection(
        catalog=parts.catalog,
        verifier=core.verifier,
        bytes_per_second=settings.cache.verify_rate_bytes,
    )
    skew = Skew(parts.catalog)
    sharing = Sharing(parts.stores.config, _catalog_name(settings))
    mending = Mending(parts.stores, parts.workers, place)
    cache = PullThrough(
        world,
        core,
        public_key=key.public,
        config=parts.stores.config,
        trouble_with_leases=lambda: agreed.trouble,
        troubles={
            "speed": parts.stores.trouble,
            "room": lambda: parts.stores.room.trouble,
            "clock": lambda: skew.trouble,
            "sharing": lambda: sharing.trouble,
            "replicas": lambda: agreement.trouble,
            "differences": lambda: agreement.difference,
            "directories": lambda: mending.trouble,
        },
    )
    kept = upkeep(
        world, settings, parts, counters, core=core, may_sweep=lambda: not sharing.trouble
    )
    return WorkingCache(
        cache=cache,
        core=core,
        sharing=sharing,
        skew=skew,
        inspection=inspection,
        mending=mending,
        upkeep=kept,
    )


def core_of(
    world: World, settings: Settings, judge: NarInfoVerifier, counters: Metrics, parts: Adapters
) -> Core:
    """Make the core as the settings have it."""
    cache = settings.cache
    state = CacheState.of(
        world,
        memory_size=limits.memory_shares(settings)[0],
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
            new_judge=limits.new_judge(settings, counters),
        ),
        is_absent_when_away=cache.upstream.away_answer == "absent",
    )
    admission = limits.admission(world.clock, settings, counters, parts.stores.room.spare)
    return Core(world, state, vetting=judge, admission=admission, rules=rules)


def _catalog_name(settings: Settings) -> str:
    """What no other catalog is called: machines, and containers more so, may bear one name."""
    url = settings.cache.database_url
    if not url.is_file:
        return str(url)
    return f"the database {url.path} (inode {url.path.stat().st_ino}) of {socket.gethostname()}"
