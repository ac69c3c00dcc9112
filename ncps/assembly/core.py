"""The cache core, put together."""

from __future__ import annotations

import socket
from functools import partial
from typing import Any

from attrs import frozen

from ncps.aio.recent import Negatives
from ncps.aio.tasks import Tasks
from ncps.assembly import limits
from ncps.assembly.cluster import cluster
from ncps.assembly.fetching import Upstreaming
from ncps.assembly.keys import vetting
from ncps.assembly.leases import Locking
from ncps.assembly.mending import Mending
from ncps.assembly.parts import Adapters, adoption, new_spool, quarantine
from ncps.assembly.role import Place
from ncps.assembly.upkeep import Upkeep, upkeep
from ncps.cache.cache import PullThrough
from ncps.cache.nar.heal import Healing
from ncps.cache.nar.serve import Nars
from ncps.cache.nar.verify import Verifier
from ncps.cache.narinfo.invalidation import Noticeboard
from ncps.cache.narinfo.known import NarInfoMemory
from ncps.cache.narinfo.last_use import Uses
from ncps.cache.narinfo.proof import Proofs
from ncps.cache.narinfo.serve import NarInfos
from ncps.cache.upkeep.agreement import Agreement
from ncps.cache.upkeep.clock_skew import Skew
from ncps.cache.upkeep.inspect import Inspection
from ncps.cache.upkeep.sharing import Sharing
from ncps.nix.keys import SecretKey
from ncps.observe.metrics import Metrics
from ncps.settings.model import Settings
from ncps.upstream.peers import PeerClients


@frozen(kw_only=True)
class Core:
    """The cache core."""

    board: Noticeboard
    cache: PullThrough
    sharing: Sharing
    skew: Skew
    nars: Nars
    uses: Uses
    inspection: Inspection
    mending: Mending
    upkeep: Upkeep


def core(
    reactor: Any,
    settings: Settings,
    parts: Adapters,
    whom: Upstreaming,
    counters: Metrics,
    tasks: Tasks,
    key: SecretKey,
    peers: PeerClients,
    agreed: Locking,
    place: Place,
    agreement: Agreement,
) -> Core:
    """Put the cache together."""

    negatives = Negatives(
        reactor,
        ttl_s=settings.cache.negative.ttl_s,
        max_entries=settings.cache.negative.max_entries,
    )
    uses = Uses(reactor, parts.catalog)
    memory = NarInfoMemory(limits.memory_shares(settings)[0])
    board = Noticeboard(agreed.notices, tasks, memory, negatives)
    board.listen()
    judge = vetting(settings, key, parts.workers)
    proofs = Proofs(
        clock=reactor,
        workers=parts.workers,
        vetting=judge,
        fetch=lambda nar: nars.read(nar),  # noqa: PLW0108 - made below
    )
    narinfos = NarInfos(
        clock=reactor,
        tasks=tasks,
        catalog=parts.catalog,
        store=parts.stores.narinfos,
        leases=agreed.leases,
        upstreams=whom.upstreams,
        vetting=judge,
        prove=proofs.prove,
        memory=memory,
        negatives=negatives,
        board=board,
        uses=uses,
        disagreed=counters.disagreements.inc,
        is_absent_when_away=settings.cache.upstream.away_answer == "absent",
        is_arriving=lambda key: nars.is_arriving(key),  # noqa: PLW0108 - made below
    )
    wrong = quarantine(reactor, settings, parts, tasks, agreed.leases, counters)
    healing = Healing(
        tasks=tasks,
        catalog=parts.catalog,
        quarantine=wrong,
        narinfos=narinfos,
        is_arriving=lambda key: nars.is_arriving(key),  # noqa: PLW0108 - made below
    )
    verifier = Verifier(
        clock=reactor,
        tasks=tasks,
        catalog=parts.catalog,
        store=parts.stores.nars,
        narinfos=narinfos,
        healing=healing,
        quarantine=wrong,
        workers=parts.workers,
        verified=lambda result: counters.inspections(result).inc(),
    )
    admission = limits.admission(reactor, settings, counters, parts.stores.room.spare)
    nars = Nars(
        clock=reactor,
        tasks=tasks,
        catalog=parts.catalog,
        store=parts.stores.nars,
        cluster=cluster(settings, agreed.leases, peers, place),
        upstreams=whom.upstreams,
        narinfos=narinfos,
        adoption=adoption(reactor, parts, tasks, agreed.leases, wrong),
        verifier=verifier,
        negatives=negatives,
        uses=uses,
        workers=parts.workers,
        new_spool=partial(new_spool, parts),
        admission=admission,
        new_seal=limits.new_seal(settings, counters),
        patience_s=settings.cache.download.resume_timeout_s,
        ended=lambda outcome: ended(outcome),  # noqa: PLW0108 - made below
    )
    counters.downloads_in_flight.set_function(lambda: nars.arriving)
    inspection = Inspection(
        catalog=parts.catalog,
        verifier=verifier,
        bytes_per_second=settings.cache.verify_rate_bytes,
    )
    skew = Skew(parts.catalog)
    sharing = Sharing(parts.stores.config, _catalog_name(settings))
    mending = Mending(parts.stores, parts.workers, place)
    cache = PullThrough(
        clock=reactor,
        tasks=tasks,
        public_key=key.public,
        narinfos=narinfos,
        nars=nars,
        catalog=parts.catalog,
        config=parts.stores.config,
        upstreams=whom.upstreams,
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
        reactor,
        settings,
        parts,
        counters,
        tasks,
        agreed,
        nars=nars,
        narinfos=narinfos,
        uses=uses,
        quarantine=wrong,
        may_sweep=lambda: not sharing.trouble,
    )

    def ended(outcome: str) -> None:
        counters.downloads(outcome).inc()
        if outcome == "published" and kept.eviction is not None:
            kept.eviction.stored()

    return Core(
        board=board,
        cache=cache,
        sharing=sharing,
        skew=skew,
        nars=nars,
        uses=uses,
        inspection=inspection,
        mending=mending,
        upkeep=kept,
    )


def _catalog_name(settings: Settings) -> str:
    """What no other catalog is called: machines, and containers more so, may bear one name."""
    url = settings.cache.database_url
    if not url.is_file:
        return str(url)
    return f"the database {url.path} (inode {url.path.stat().st_ino}) of {socket.gethostname()}"
